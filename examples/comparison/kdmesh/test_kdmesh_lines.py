from kdmesh.testing import ObserverContract


class TestLines(ObserverContract):
    module = "kdmesh_lines"
