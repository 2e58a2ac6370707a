module morphisms/node/pause

go 1.26.0
