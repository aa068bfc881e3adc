"""Check answers inside the kernel that runs a submission.

The worker runs this file's source for each request, in a new namespace. The names that a learner
deletes or assigns, for example with `%reset` or `types = [...]`, therefore do not affect it.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import sys
from collections.abc import Iterator

from IPython import get_ipython

# The attribute of IPython's shell that stores what later requests need. Unlike a variable, it
# survives `%reset`.
STORE = "_tfcourse_grading"
MISSING = object()


def remember(nonce: str, watched: list[str]) -> None:
    """Store the objects that the checks depend on; publish their ids.

    Parameters
    ----------
    nonce
        What the published text starts with.
    watched
        Dotted names that start with a module, such as `numpy.allclose` and `builtins.sum`.
    """
    stored = [(name, *place, look_up(*place)) for name, place in places(watched).items()]
    setattr(get_ipython(), STORE, {"objects": stored})
    publish(nonce, identities=identities(watched))


def prepare(nonce: str, ours: str) -> None:
    """Run the exercise's own cells in a namespace that the learner's code does not share."""
    store = getattr(get_ipython(), STORE)
    failed = None
    with restored(store["objects"]):
        # Nobody reads what our checks print here.
        store["ours"] = {
            "__name__": "__main__",
            "__builtins__": {**vars(builtins), "print": lambda *_, **__: None},
        }
        try:
            cells = compile(ours, "<checks>", "exec", dont_inherit=True)
            exec(cells, store["ours"])  # noqa: S102 - our own cells
        except Exception as error:  # for example, because the submission has deleted the data
            failed = f"The check could not be prepared: {type(error).__name__}: {error}"
        publish(nonce, failed=failed)


def judge(nonce: str, check: str, watched: list[str], theirs: dict[str, object]) -> None:
    """Run a check of an answer; publish its verdict, and the ids of the objects that it used.

    Parameters
    ----------
    nonce
        What the published text starts with.
    check
        The source of the check's cell, such as `check_softmax(softmax)`.
    watched
        As for `remember`.
    theirs
        The learner's variables.
    """
    store = getattr(get_ipython(), STORE)
    ours, name = store["ours"], check.partition("(")[0]
    with restored(store["objects"]) as replaced:
        try:
            exec(check, {**ours, **theirs, name: ours[name]})  # noqa: S102 - our own check
            mistake = ours[name].mistake
        except KeyboardInterrupt:  # the time limit
            raise
        except Exception as error:
            mistake = f"The check could not be run: {type(error).__name__}: {error}"
        except BaseException:  # for example, SystemExit
            mistake = "The check did not finish."
        mistake = mistake and str(mistake)
        found = identities(watched)
        publish(nonce, mistake=mistake, replaced=replaced, identities=found)


@contextlib.contextmanager
def restored(objects: list[tuple]) -> Iterator[list[str]]:
    """Put the stored objects back where they were; afterwards, undo this.

    Yield the names of the objects that the submission had replaced. Some learners' code does this
    on purpose, for example to change a default of `np.load`.
    """
    places = [(name, owner, key, look_up(owner, key), value) for name, owner, key, value in objects]
    replaced = [place for place in places if place[3] is not place[4]]
    try:
        for _, owner, key, _, original in replaced:
            assign(owner, key, original)
        yield [place[0] for place in replaced]
    finally:
        for _, owner, key, theirs, _ in reversed(replaced):
            assign(owner, key, theirs)


def places(watched: list[str]) -> dict[str, tuple[object, str]]:
    """Return the place of each object: an object or a dictionary, and the attribute or the key."""
    found = {}
    for name in watched:
        module, *attributes = name.split(".")
        __import__(module)
        owner, key = sys.modules, module
        found[module] = (owner, key)
        for attribute in attributes:
            value = look_up(owner, key)
            if look_up(value, attribute) is not look_up(value, attribute):
                break  # a method, for which Python makes a new object each time
            owner, key = value, attribute
            found[name] = (owner, key)
    return found


def look_up(owner: object, key: str) -> object:
    """Return a dictionary's item or an object's attribute; MISSING if there is none."""
    return owner.get(key, MISSING) if isinstance(owner, dict) else getattr(owner, key, MISSING)


def assign(owner: object, key: str, value: object) -> None:
    """Set a dictionary's item or an object's attribute; delete it if the value is MISSING."""
    if isinstance(owner, dict):
        owner.pop(key, None) if value is MISSING else owner.update({key: value})
    elif value is MISSING:
        delattr(owner, key)
    else:
        setattr(owner, key, value)


def identities(watched: list[str]) -> dict[str, int]:
    """Return the ids of the objects to which the watched names refer now."""
    return {name: id(look_up(*place)) for name, place in places(watched).items()}


def publish(nonce: str, **what: object) -> None:
    """Send data to the worker, even if the submission has replaced `sys.stdout`."""
    publisher = get_ipython().display_pub
    # JSON's escapes let even a lone surrogate reach the worker.
    type(publisher).publish(publisher, {"text/plain": nonce + json.dumps(what)})
