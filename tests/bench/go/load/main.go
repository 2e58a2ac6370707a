// A bounded load: CONNECTIONS connections post one body for SECONDS, or get where there is none; prints rate and
// latencies. Connections are kept, unless every request is to have its own; those resume sessions where asked to.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"sort"
	"sync"
	"time"
)

func main() {
	url := flag.String("url", "", "")
	ca := flag.String("ca", "", "")
	file := flag.String("body", "", "")
	connections := flag.Int("connections", 16, "")
	seconds := flag.Float64("seconds", 3, "")
	fresh := flag.Bool("fresh", false, "a connection for each request")
	resume := flag.Bool("resume", false, "resume the TLS session of a former connection")
	most := flag.Int("most", 1<<30, "stop after so many requests")
	flag.Parse()
	method, body := "GET", []byte(nil)
	if *file != "" {
		read, err := os.ReadFile(*file)
		check(err)
		method, body = "POST", read
	}
	pool := x509.NewCertPool()
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		check(err)
		pool.AppendCertsFromPEM(pem)
	}
	settings := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	if *resume {
		settings.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: settings, DisableKeepAlives: *fresh,
		MaxIdleConnsPerHost: *connections, MaxConnsPerHost: *connections, ForceAttemptHTTP2: false,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}}
	var mutex sync.Mutex
	var group sync.WaitGroup
	var latencies []float64
	failed, left := 0, *most
	begin := time.Now()
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	for i := 0; i < *connections; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for time.Now().Before(end) {
				mutex.Lock()
				left--
				stop := left < 0
				mutex.Unlock()
				if stop {
					return
				}
				start := time.Now()
				request, err := http.NewRequest(method, *url, bytes.NewReader(body))
				check(err)
				request.Header.Set("Content-Type", "application/json")
				response, err := client.Do(request)
				ok := err == nil && response.StatusCode == 200
				if err == nil {
					_, _ = io.Copy(io.Discard, response.Body)
					_ = response.Body.Close()
				}
				took := time.Since(start).Seconds()
				mutex.Lock()
				if ok {
					latencies = append(latencies, took)
				} else {
					failed++
				}
				mutex.Unlock()
			}
		}()
	}
	group.Wait()
	wall := time.Since(begin).Seconds()
	sort.Float64s(latencies)
	at := func(share float64) float64 {
		if len(latencies) == 0 {
			return 0
		}
		return latencies[int(share*float64(len(latencies)-1))] * 1000
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": len(latencies), "failed": failed, "rate": float64(len(latencies)) / wall,
		"p50_ms": at(0.5), "p99_ms": at(0.99),
	})
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
