"""CBC and HiGHS through PuLP: what they found, and what they proved of it.

The bound is the solver's own: HiGHS gives it (`mip_dual_bound`), CBC writes it into its log, as "Lower bound" where it
stopped early; where its log says that an optimal solution was found, it is the value of that. A solver works in
floating point with tolerances, and so does what it proves.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulp

from tfq.errors import UserError
from tfq.execution.terminal import silenced

SOLVERS = ("auto", "cbc", "highs")
# HiGHS starts its threads once a process, and fails where a later program asks for another number.
_ALWAYS: Mapping[str, Any] = {"msg": False, "threads": 1}
_NUMBER = r":\s*([-+0-9.eE]+)\s*$"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of one program.

    Attributes:
      found: its variables hold a solution, if not the best one.
      finished: the solver ended by itself: the solution is the best one, or none exists.
      bound: no solution has a smaller objective, so the solver says; inf where there is no solution, -inf where it says
        nothing.
    """

    found: bool
    finished: bool
    bound: float


def solved(program: pulp.LpProblem, solver: str, *, gap: float = 0.0, time_limit: float = math.inf) -> Outcome:
    """Solve a program of integers.

    Args:
      program: to be minimised; its variables get their values.
      solver: "cbc" or "highs".
      gap: the solver may end when it has proved that it is as near as this, as a fraction of the objective.
      time_limit: seconds after which it ends with what it has.

    Raises:
      RuntimeError: the solver ended in another way.
    """
    with tempfile.TemporaryDirectory(prefix="tfq-") as folder:
        log = Path(folder) / "cbc.log"
        limits: dict[str, Any] = {} if math.isinf(time_limit) else {"timeLimit": time_limit}
        options: dict[str, Any] = {**_ALWAYS, "gapRel": gap, "gapAbs": 0.0, **limits}
        if solver == "highs":
            _by_highs(program, options)
        else:
            _by_cbc(program, options, log)
        if program.status == pulp.LpStatusInfeasible:
            return Outcome(found=False, finished=True, bound=math.inf)
        found = program.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
        finished = program.status == pulp.LpStatusOptimal and program.sol_status == pulp.LpSolutionOptimal
        stopped = program.status in (pulp.LpStatusOptimal, pulp.LpStatusNotSolved) and not math.isinf(time_limit)
        if not finished and not stopped:
            raise RuntimeError(
                f"{solver} ended with {pulp.LpStatus[program.status]!r}, {pulp.LpSolution[program.sol_status]!r}"
            )
        bound = _bound_of_highs(program) if solver == "highs" else bound_of_cbc(log.read_text(encoding="utf-8"))
        return Outcome(found, finished, bound)


def relaxed(program: pulp.LpProblem, solver: str) -> None:
    """Solve a program with fractions for its integers; its rows get their duals."""
    options = {**_ALWAYS, "mip": False}
    if solver == "highs":
        _by_highs(program, options)
    else:
        program.solve(_cbc(**options))


def bound_of_cbc(log: str) -> float:
    """What CBC proved, from its log: its lower bound, or the objective of a solution that it calls optimal."""
    for name in ("Lower bound", "Objective value"):
        if name == "Objective value" and not re.search(r"^Result - Optimal solution found\s*$", log, re.MULTILINE):
            return -math.inf
        found = re.findall(rf"^{name}{_NUMBER}", log, re.MULTILINE)
        if found:
            return float(found[-1])
    return -math.inf


def _bound_of_highs(program: pulp.LpProblem) -> float:
    return float(program.solverModel.getInfo().mip_dual_bound)


def _by_highs(program: pulp.LpProblem, options: Mapping[str, Any]) -> None:
    with silenced():  # it prints its version, whatever it is told
        program.solve(pulp.HiGHS(**options))


def _by_cbc(program: pulp.LpProblem, options: Mapping[str, Any], log: Path) -> None:
    try:
        program.solve(_cbc(logPath=str(log), **options))
    except pulp.PulpSolverError:
        # CBC dies of some programs without a solution, which its preprocessing tells
        if program.solve(pulp.PULP_CBC_CMD(**options)) != pulp.LpStatusInfeasible:
            raise


def _cbc(**options: Any) -> pulp.LpSolver:
    # CBC's integer preprocessing has called an allocation optimal that was not
    return pulp.PULP_CBC_CMD(**options, options=["preprocess off"])


def chosen(solver: str) -> str:
    """ "cbc" or "highs"; raises UserError where it is not there."""
    if solver not in SOLVERS:
        raise UserError(f"solver (={solver!r}) must be one of {', '.join(SOLVERS)}")
    if solver == "auto":
        return "highs" if pulp.HiGHS(msg=False).available() else "cbc"
    if solver == "highs" and not pulp.HiGHS(msg=False).available():
        raise UserError("solver 'highs' needs the package highspy; install it or take 'cbc'")
    if solver == "cbc" and not pulp.PULP_CBC_CMD(msg=False).available():
        raise UserError("PuLP brings no CBC for this machine; install highspy and take 'highs'")
    return solver
