"""What the tests of exports share."""

LONGEST = 32  # tokens


def snapshot(folder):
    """Every file below a folder, hidden ones too."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
