"""How the pairs' folder comes about: files of their full size first, then each sample's part put in its place.

`plan` finds out how much each sample brings, `parts` writes it, `folds` what belongs to a fold, `whole` puts together
what is one file for all; `blocks` and `lock` are their tools. While it is being written the folder has a hidden name
with its key in it; building/ in it says what is done, so that a killed build goes on and ends in the same bytes.
"""
