"""`python -m scaling`: the commands."""

import ast
from pathlib import Path


def commands() -> dict[str, str]:
    """Name of every command -> the first line of what it says of itself."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        text = file.read_text()
        if text.endswith("\n    cli.run(main)\n"):
            found[file.stem] = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
    return found


if __name__ == "__main__":
    print("usage: python -m scaling.COMMAND --help\n")
    for name, what in commands().items():
        print(f"  {name:<12} {what}")
