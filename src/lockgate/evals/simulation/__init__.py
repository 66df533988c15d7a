"""Trials that are conversations: a simulated user, and tools that act on a world of the trial's own."""

from lockgate.evals.simulation.conversation import converse
from lockgate.evals.simulation.model import Simulation, UserScript, simulation_of
from lockgate.evals.simulation.world import World, changes, load_world

__all__ = ["Simulation", "UserScript", "World", "changes", "converse", "load_world", "simulation_of"]
