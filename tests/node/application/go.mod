module morphisms/node/application

go 1.26.0
