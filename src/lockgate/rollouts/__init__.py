"""Assignment, evidence, decision: shadow, canary, promotion, rollback."""
