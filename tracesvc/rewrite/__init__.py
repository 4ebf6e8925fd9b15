"""Traces made of traces: a part, several as one, one without what must not be known; of Go's, of a black box."""

from tracesvc.rewrite.anonymize import anonymize
from tracesvc.rewrite.cut import cut
from tracesvc.rewrite.go_read import import_go
from tracesvc.rewrite.last import LastOf, last_of_tasks
from tracesvc.rewrite.merge import merge
from tracesvc.rewrite.recover import Recovered, recover

__all__ = [
    "LastOf",
    "Recovered",
    "anonymize",
    "cut",
    "import_go",
    "last_of_tasks",
    "merge",
    "recover",
]
