"""A trained agent in a form that other software runs, compared with it and scored beside it."""
