// A minimal admission server in Go: it decodes the review and its pod into Kubernetes' own types, as every Go webhook
// does, and answers "allowed". It prints its ports with and without TLS.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
)

func main() {
	cert := flag.String("tls-cert", "", "")
	key := flag.String("tls-key", "", "")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	http.HandleFunc("/mutate/pod", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var review admissionv1.AdmissionReview
		if err := json.Unmarshal(body, &review); err != nil {
			http.Error(w, "bad", 400)
			return
		}
		var pod corev1.Pod
		if err := json.Unmarshal(review.Request.Object.Raw, &pod); err != nil {
			http.Error(w, "bad", 400)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		review.Request = nil
		_ = json.NewEncoder(w).Encode(review)
	})
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	secure, plain := listen(), listen()
	fmt.Println(port(secure), port(plain))
	go func() { log.Fatal(http.Serve(plain, nil)) }()
	log.Fatal(http.ServeTLS(secure, nil, *cert, *key))
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func port(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }
