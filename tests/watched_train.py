"""`python -m tests.watched_train`: trains as `wrn_jax.train` does, and prints every path that Python code opens to write,
makes, renames or removes. What C++ code writes does not show; a test looks for that in the folders."""

import os
import sys

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
touched = set()


def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike) and (arguments[2] or 0) & _WRITING:
        touched.add(os.path.abspath(os.fsdecode(arguments[0])))
    elif event in _CHANGES:
        touched.update(os.path.abspath(os.fsdecode(path)) for path in arguments[:2] if isinstance(path, str | bytes))


if __name__ == "__main__":
    sys.addaudithook(watch)
    from wrn_jax import command, train

    code = command.run(train.main, "train")
    print("\n".join(f"touched {path}" for path in sorted(touched)))
    sys.exit(code)
