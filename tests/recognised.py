"""What each built-in recogniser finds whole, and what it does not."""

from __future__ import annotations

from typing import Any

RECOGNISED: dict[str, dict[str, Any]] = {
    "email": {
        "texts": ("ann@example.org", "a.b+c@mail.example.co.uk", "o'neil@exämple.de"),
        "others": ("ann@example", "@example.org", "a @ b.org", "1@2.3", "me@x."),
    },
    "url": {
        "texts": ("https://example.org/a?b=c#d", "ftp://example.org", "www.example.org/page"),
        "others": ("example", "http://", "www.", "a.www.b"),
    },
    "ip_address": {
        "texts": ("10.0.0.1", "255.255.255.0", "2001:db8::8a2e:370:7334", "fe80::1ff:fe23:4567:890a"),
        "others": ("256.1.1.1", "1.2.3", "1.2.3.4.5", "12:30", "::", "1.2.3.4a", "10:20:30"),
    },
    "mac_address": {
        "texts": ("00:1B:44:11:3A:B7", "00-1b-44-11-3a-b7"),
        "others": ("00:1B:44:11:3A", "00:1B-44:11:3A:B7", "00:1B:44:11:3A:B7:00", "0G:1B:44:11:3A:B7"),
    },
    "phone": {
        "texts": (
            *("+1 202-555-0100", "(202) 555-0100", "202-555-0100", "+44 20 7946 0958", "0044 20 7946 0958"),
            *("030 1234567", "+4930123456", "202.555.0100 ext. 12"),
        ),
        "others": ("2024-03-01", "1234567", "12.50", "1,234,567", "3.14159265", "10:30-11:45", "123-45-6789"),
    },
    "credit_card": {
        "texts": (
            *("4111 1111 1111 1111", "4111111111111111", "5500-0000-0000-0004", "340000000000009"),
            *("6011000000000004", "30000000000004"),
        ),
        "others": ("4111 1111 1111 1112", "1234567890123456", "0000000000000000", "411111111111"),
    },
    "iban": {
        "texts": ("DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "gb82west12345698765432", "NO9386011117947"),
        "others": ("DE89370400440532013001", "DE89", "GB82 WEST 1234", "XX00AAAAAAAAAAAAAAA"),
    },
    "us_ssn": {
        "texts": ("219-09-9999", "219 09 9999"),
        "others": (
            *("000-12-3456", "666-12-3456", "900-12-3456", "219-00-1234", "219-09-0000", "219099999", "219-09 9999"),
            *("1-219-09-9999", "219-09-99999"),
        ),
    },
    "us_npi": {"texts": ("1234567893", "1245319599"), "others": ("1234567890", "3234567893", "12345678931")},
    "uk_nhs": {"texts": ("943 476 5919", "9434765919", "401-023-2137"), "others": ("943 476 5918", "1111111111")},
    "vin": {
        "texts": ("1M8GDM9AXKP042788", "1HGCM82633A004352"),
        "others": ("1M8GDM9A1KP042788", "1M8GDM9AXKP04278", "INTERNATIONALISED", "12345678901234567"),
    },
    "date": {
        "texts": (
            *("2024-03-01", "3/1/2024", "01.03.24", "1 March 2024", "March 1st", "March 2024", "12th of May"),
            "Sept. 3, 1999",
        ),
        "others": ("2024", "3/4", "1.2.3.4", "32/13/2024", "may be", "99-99-99", "1/2", "version 1.2.3"),
    },
    "age": {
        "texts": ("{{92}} years old", "{{94}}-year-old", "aged {{101}}", "age: {{91}}"),
        "others": ("89 years", "aged 42", "92 kilograms", "page 91", "130 years old"),
    },
    "us_zip": {
        "texts": ("NY {{12345}}", "CA, {{94105-1234}}"),
        "others": ("12345", "NY 1234", "XX 12345", "ny 12345", "NY 123456"),
    },
    "pattern": {
        "config": {"match": "MRN-[0-9]{4}", "kind": "RECORD"},
        "texts": ("MRN-0042",),
        "others": ("MRN-42",),
    },
    "words": {
        "config": {"words": ["Ann", "Mary Ann", "Óscar"], "kind": "PERSON"},
        "texts": ("Ann", "mary ann", "ÓSCAR"),
        "others": ("Annual", "Joann", "Mary"),
    },
}
