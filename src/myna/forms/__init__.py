"""What an answer must look like, enforced: forms become grammars, grammars say which tokens may come next, and a finished
answer is checked by somebody else. llguidance does the matching, behind `Matcher`. No torch."""

from myna.forms.compiler import CheckFailed, Compiled, Compiler, Reasoning
from myna.forms.matcher import FormError, Matcher

__all__ = ["CheckFailed", "Compiled", "Compiler", "FormError", "Matcher", "Reasoning"]
