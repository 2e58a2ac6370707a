// An application of a test: it answers each request with digests of its secrets and never with a secret.
//
// FILES and VARIABLES name, separated by commas, the files and the variables that it reads anew for each request. It
// counts the hangups that it was sent. `?hold=2s` makes an answer late, `?eat=64` takes so many MiB of memory. Without
// a PORT, as a Job's, it ends after one look. An image holds nothing but this program.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

type answer struct {
	Files     map[string]string `json:"files"`
	Variables map[string]string `json:"variables"`
	Hangups   int64             `json:"hangups"`
	User      int               `json:"user"`
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func names(variable string) []string {
	return strings.FieldsFunc(os.Getenv(variable), func(c rune) bool { return c == ',' })
}

func look(hangups int64) answer {
	seen := answer{Files: map[string]string{}, Variables: map[string]string{}, Hangups: hangups, User: os.Getuid()}
	for _, name := range names("FILES") {
		content, err := os.ReadFile(name)
		if err != nil {
			seen.Files[name] = "unreadable: " + err.Error()
			continue
		}
		seen.Files[name] = digest(content)
	}
	for _, name := range names("VARIABLES") {
		if value, found := os.LookupEnv(name); found {
			seen.Variables[name] = digest([]byte(value))
		} else {
			seen.Variables[name] = "unset"
		}
	}
	return seen
}

func main() {
	// An application fails closed: without its secrets it does not serve.
	for _, found := range look(0).Files {
		if strings.HasPrefix(found, "unreadable") {
			println("a secret is missing: " + found)
			os.Exit(1)
		}
	}
	if os.Getenv("PORT") == "" {
		return
	}
	var hangups atomic.Int64
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for range signals {
			hangups.Add(1)
		}
	}()
	ending, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{Addr: ":" + os.Getenv("PORT"), ReadHeaderTimeout: 10 * time.Second}
	var eaten [][]byte
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if held, err := time.ParseDuration(r.URL.Query().Get("hold")); err == nil {
			time.Sleep(held)
		}
		if size, err := strconv.Atoi(r.URL.Query().Get("eat")); err == nil {
			eaten = append(eaten, bytes.Repeat([]byte{1}, size<<20))
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(look(hangups.Load()))
	})
	go func() {
		<-ending.Done()
		server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		println(err.Error())
		os.Exit(1)
	}
}
