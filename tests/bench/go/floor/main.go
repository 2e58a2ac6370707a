// A minimal admission server in Go: it decodes the whole review and answers "allowed". What any webhook has to do.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"runtime"
)

func main() {
	cert := flag.String("tls-cert", "", "")
	key := flag.String("tls-key", "", "")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	http.HandleFunc("/mutate/pod", func(w http.ResponseWriter, r *http.Request) {
		var review map[string]any
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		request, _ := review["request"].(map[string]any)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "admission.k8s.io/v1",
			"kind":       "AdmissionReview",
			"response":   map[string]any{"uid": request["uid"], "allowed": true},
		})
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.ServeTLS(listener, nil, *cert, *key))
}
