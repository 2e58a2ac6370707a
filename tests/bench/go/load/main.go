// A bounded load: CONNECTIONS keep-alive connections post one body over TLS for SECONDS; prints rate and latencies.
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
	most := flag.Int("most", 1<<30, "stop after so many requests")
	flag.Parse()
	body, err := os.ReadFile(*file)
	check(err)
	pem, err := os.ReadFile(*ca)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, ServerName: "localhost"},
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
				response, err := client.Post(*url, "application/json", bytes.NewReader(body))
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
