"""The constants of features for the browser: ``python -m m6rec.features.typescript > web/src/features.ts``."""

from m6rec.features import layout

CONSTANTS = (
    "USER_PRIOR",
    "ITEM_PRIOR",
    "CATEGORY_PRIOR",
    "NEAR_PRIOR",
    "NEAR_SPREADS",
    "RECENT_MEMORY",
    "LATEST",
)


def typescript_constants() -> str:
    """The whole file."""
    numbers = {
        "NUM_FEATURES": len(layout.FEATURES),
        "NUM_EVENT_FEATURES": len(layout.EVENT_FEATURES),
        **{name: getattr(layout, name) for name in CONSTANTS},
    }
    lines = [f"export const {name} = {value:g};" for name, value in numbers.items()]
    return "\n".join(["/** Written by `python -m m6rec.features.typescript`. */", "", *lines, ""])


if __name__ == "__main__":
    print(typescript_constants(), end="")
