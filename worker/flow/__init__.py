"""The workflow engine: definitions, plans, expressions, contexts, the conductor, rehearsals.

Nothing is imported here, so that a worker that serves no workflow imports neither Jinja2 nor
PyYAML: say ``from pronghorn.worker.flow.rehearsal import rehearse``.
"""
