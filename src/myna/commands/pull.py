"""myna pull: fetch or import a model."""

from myna.modeldir import pull


def run(what: str, /, *, name: str | None = None, file: str | None = None, replace: bool = False) -> None:
    """Fetch or import a model and print the path of its directory. A model that is already there is left as it is.

    Parameters
    ----------
    what
        A name that `myna list` shows, hub:OWNER/REPO, or the path of a .gguf file or a Hugging Face directory.
    name
        What to call it here.
    file
        Which .gguf file of a hub repository, where it has several.
    replace
        Fetch it again and replace the one that is here.
    """
    print(pull(what, name, file=file, replace=replace))
