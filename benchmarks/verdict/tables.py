def write_tables(rows):
    pass
