// A minimal admission server in Go: it decodes the review and its pod into Kubernetes' own types, as every Go webhook
// does, and answers "allowed", with the JSON Patch of a file where it was given one. It prints its ports with and
// without TLS.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
)

func main() {
	cert := flag.String("tls-cert", "", "")
	key := flag.String("tls-key", "", "")
	file := flag.String("patch", "", "")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	var patch []byte
	if *file != "" {
		read, err := os.ReadFile(*file)
		if err != nil {
			log.Fatal(err)
		}
		patch = read
	}
	answer := func(w http.ResponseWriter, r *http.Request, patch []byte) {
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
		// Another mutating webhook makes the API server ask again about a pod that has been patched.
		if patch != nil && len(pod.Spec.InitContainers) == 0 {
			kind := admissionv1.PatchTypeJSONPatch
			review.Response.Patch, review.Response.PatchType = patch, &kind
		}
		review.Request = nil
		_ = json.NewEncoder(w).Encode(review)
	}
	http.HandleFunc("/mutate/pod", func(w http.ResponseWriter, r *http.Request) { answer(w, r, patch) })
	http.HandleFunc("/validate/pod", func(w http.ResponseWriter, r *http.Request) { answer(w, r, nil) })
	healthy := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }
	http.HandleFunc("/healthz", healthy)
	http.HandleFunc("/readyz", healthy)
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
