"""Tries whether this machine is fit for a recipe: `python -m wrn_jax.check --config session04`."""

from wrn_jax.runtime import allocator, entry

if __name__ == "__main__":
    allocator.restart("wrn_jax.check")
    entry.begin("check")

import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wrn_jax import command
from wrn_jax.config import apply_arguments
from wrn_jax.planning.tables import table
from wrn_jax.runtime import console, devices, files
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path

if TYPE_CHECKING:
    from wrn_jax.planning.fitness import Answer

MARKS = {"ok": "ok", "note": "look", "failed": "FAILED", "skipped": "-"}


def main(argv: Sequence[str] | None = None) -> None:
    """Asks all questions and prints the answers. Raises UserError, and SystemExit with code 1 if an answer is "failed"."""
    parser = command.parser("check", f"Tries whether this machine is fit for a recipe.\n{allocator.HELP}", with_keys=True)
    parser.add_argument("--price", metavar="NUMBER", help="of an hour of this machine, to say what the recipe costs")
    where = "where checkpoints would go (default: here)"
    parser.add_argument("--folder", type=user_path, default=Path("."), metavar="DIR", help=where)
    parser.add_argument("--deterministic", action="store_true", help="as for train: the same bits on the same GPU")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON")
    options, overrides = command.parse(parser, argv)
    price = _price(options.price)
    config = command.read_config(options.config, overrides) if options.config else None
    from wrn_jax.planning.fitness import Machine, small_config  # here, since mistakes above need not wait for it
    from wrn_jax.training.setup import divide_cpu

    config = config or apply_arguments(small_config(), overrides)
    files.make_directory(options.folder)
    if options.deterministic:
        devices.be_deterministic()
    divide_cpu(config)
    begin = time.perf_counter()
    machine = Machine(config, options.folder, price)
    answers: list[Answer] = []
    with console.waiting("trying this machine; a minute or two"):
        for answer in machine.answers():
            answers.append(answer)
            console.tell(f"  {answer.name}: {MARKS[answer.status]}")
    precision = machine.setup.config.precision
    network = f"{config.model.title}, batch {config.recipe.batch_size}, {precision}"
    seconds = time.perf_counter() - begin
    if options.json:
        about: dict[str, Any] = {"network": network, "seconds": seconds, "recipe": str(options.config or "")}
        print(json.dumps(about | {"answers": [vars(answer) for answer in answers]}, indent=2))
    else:
        print("\n".join(report_lines(answers, network, seconds)))
    if any(answer.status == "failed" for answer in answers):
        sys.exit(1)


def _price(text: str | None) -> float | None:
    """Raises UserError unless it is a number from 0 on."""
    try:
        price = None if text is None else float(text)
    except ValueError:
        price = -1.0
    if price is not None and not 0 <= price < 1e6:
        raise UserError(f"--price {text}: should be a number, such as 1.20")
    return price


def report_lines(answers: Sequence["Answer"], network: str, seconds: float) -> list[str]:
    """The table, what to do, and the block for a report."""
    rows = [(answer.name, MARKS[answer.status], answer.text) for answer in answers]
    todo = [f"{answer.name}: {answer.advice}" for answer in answers if answer.advice]
    head = f"wrn_jax check: {network}; {platform.system()} {platform.machine()}; took {console.format_duration(seconds)}"
    verdict = "this machine is fit" if all(answer.status != "failed" for answer in answers) else "this machine is NOT fit"
    return ["Paste from here to the end into a report:", "", "```", head, *table([("question", "", "found"), *rows]),
            *(["", "what to do:", *todo] if todo else []), f"{verdict} for this recipe", "```"]  # fmt: skip


if __name__ == "__main__":
    sys.exit(command.run(main, "check"))
