// An open loop: RATE requests a second are sent when they are due, whatever became of those before, and each one's
// latency counts from that moment. Prints every latency; stops by itself when too many are under way.
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
	"sync"
	"time"
)

func main() {
	url := flag.String("url", "", "")
	ca := flag.String("ca", "", "")
	certificate := flag.String("cert", "", "the client's own")
	key := flag.String("key", "", "")
	file := flag.String("body", "", "")
	rate := flag.Float64("rate", 50, "a second")
	seconds := flag.Float64("seconds", 5, "")
	connections := flag.Int("connections", 8, "")
	most := flag.Int("most", 1000, "stop when more are under way")
	flag.Parse()
	body, err := os.ReadFile(*file)
	check(err)
	pem, err := os.ReadFile(*ca)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	check(err)
	clients := make([]*http.Client, *connections)
	for i := range clients {
		// A transport each, or HTTP/2 would put them all on one connection.
		clients[i] = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
			ForceAttemptHTTP2: true,
		}}
		send(clients[i], *url+"?dryRun=All", body) // connects
	}
	var mutex sync.Mutex
	var group sync.WaitGroup
	latencies := []float64{}
	failed, running := 0, 0
	problem := ""
	total := int(*rate * *seconds)
	begin := time.Now()
	sent := 0
	for ; sent < total; sent++ {
		due := begin.Add(time.Duration(float64(sent) / *rate * float64(time.Second)))
		time.Sleep(time.Until(due))
		mutex.Lock()
		running++
		stop := running > *most
		mutex.Unlock()
		if stop {
			break
		}
		group.Add(1)
		go func(client *http.Client) {
			defer group.Done()
			said := send(client, *url, body)
			took := time.Since(due).Seconds()
			mutex.Lock()
			defer mutex.Unlock()
			running--
			if said == "" {
				latencies = append(latencies, took*1000)
			} else {
				failed++
				problem = said
			}
		}(clients[sent%len(clients)])
	}
	group.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"latencies_ms": latencies, "failed": failed, "problem": problem, "unsent": total - sent,
		"seconds": time.Since(begin).Seconds(),
	})
}

// Sends one, and says what is wrong with the answer.
func send(client *http.Client, url string, body []byte) string {
	response, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return "no answer"
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "half an answer"
	}
	if response.StatusCode != 201 {
		return string(answer)
	}
	return ""
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
