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
  // A page with one of several words in a heading would stand beside the heading that is all of
  // them: that one has a place on its page (an anchor), and all 40 points of a title.
  score: ([, , anchor, , score]) => score + (anchor && score >= 40 ? 10 : 0),
};
