// How the search ranks what it finds: the heading that is the term itself first, which is the
// glossary's, then pages, and the package's functions, which Sphinx puts first, among them.
var Scorer = {
  objNameMatch: 6,
  objPartialMatch: 3,
  objPrio: { 0: 0, 1: 0, 2: -5 },
  objPrioDefault: 0,
  title: 40,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
