"""Trials that are conversations: a simulated user, tools that act on a world of the trial's own, its state at the end."""

from lockgate.evals.simulation.conversation import converse
from lockgate.evals.simulation.model import Simulation, UserScript, simulation_of
from lockgate.evals.simulation.world import World, changes, load_world

__all__ = ["Simulation", "UserScript", "World", "changes", "converse", "load_world", "simulation_of"]
