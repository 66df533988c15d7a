"""What counts as a good answer here: scorers of the project's own."""


def says_the_fact(sample):
    """Whether the expected fact stands in the answer."""
    if sample.case is None:
        return None, "no case"
    wanted, said = sample.case.expected_output["answer"], sample.output["answer"]
    return wanted.casefold() in said.casefold(), f"{said!r}, and wanted {wanted!r}"
