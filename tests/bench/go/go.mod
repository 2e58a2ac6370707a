module morphisms/bench

go 1.24
