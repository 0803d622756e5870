// Command conformance replays the golden requests of a repository against the server that serves
// it, tries what has to fail, and prints what it found as one JSON object.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sort"
	"time"

	"seqrec"
)

type report struct {
	Client   string            `json:"client"`
	Requests int               `json:"requests"`
	Passed   int               `json:"passed"`
	P50      float64           `json:"p50_ms"`
	Cases    map[string]string `json:"cases"`
	Failures []string          `json:"failures"`
}

type servers struct {
	url, gone, silent, flaky, layouts, tlsURL string
	tls                                       seqrec.TLS
}

func main() {
	var given servers
	flag.StringVar(&given.url, "url", "", "gRPC address of the server")
	repository := flag.String("repository", "", "folder that it serves")
	flag.StringVar(&given.gone, "gone", "", "address where nothing listens")
	flag.StringVar(&given.silent, "silent", "", "address that never answers")
	flag.StringVar(&given.flaky, "flaky", "", "address that answers from a script")
	flag.StringVar(&given.layouts, "layouts", "", "folder of rows that --flaky knows laid out")
	flag.StringVar(&given.tlsURL, "tls-url", "", "gRPC address of a server with mutual TLS")
	flag.StringVar(&given.tls.CA, "tls-ca", "", "PEM file of who vouches for it")
	flag.StringVar(&given.tls.Cert, "tls-cert", "", "PEM file of this side's certificate")
	flag.StringVar(&given.tls.Key, "tls-key", "", "PEM file of its key")
	flag.Parse()

	models, err := readRepository(*repository)
	if err != nil {
		log.Fatal(err)
	}
	if len(models) == 0 || given.url == "" {
		log.Fatal("conformance needs --url and, with models in it, --repository")
	}
	client, err := seqrec.Dial(given.url, seqrec.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	result := report{Client: "go", Cases: map[string]string{}, Failures: []string{}}
	result.replay(client, models)
	for _, test := range cases(client, models, given) {
		result.Cases[test.name] = "ok"
		if err := test.run(); err != nil {
			result.Cases[test.name] = "failed"
			result.fail("%s: %v", test.name, err)
		}
	}
	line, err := json.Marshal(result)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
	if len(result.Failures) > 0 {
		os.Exit(1)
	}
}

func (r *report) fail(format string, values ...any) {
	r.Failures = append(r.Failures, fmt.Sprintf(format, values...))
}

// replay sends every golden request, one at a time.
func (r *report) replay(client *seqrec.Client, models []served) {
	var milliseconds []float64
	for _, model := range models {
		if ready, err := client.Ready(ctx, model.contract.Model); err != nil || !ready {
			r.fail("%s is not ready: %v", model.contract.Model, err)
		}
		for _, request := range model.requests {
			r.Requests++
			start := time.Now()
			answer, err := client.Call(ctx, model.contract, request.rows)
			milliseconds = append(milliseconds, float64(time.Since(start).Microseconds())/1000)
			if err != nil {
				r.fail("%s: %v", request.name, err)
			} else if difference := request.compare(answer); difference != "" {
				r.fail("%s: %s", request.name, difference)
			} else {
				r.Passed++
			}
		}
	}
	if sort.Float64s(milliseconds); len(milliseconds) > 0 {
		r.P50 = milliseconds[len(milliseconds)/2]
	}
}
