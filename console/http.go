package console

import (
	"bytes"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Readiness is the body of /readyz.
type Readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"` // why not; empty when ready
	// Warnings are what is wrong and no reason: bound addresses are served whatever the disk does.
	Warnings []string `json:"warnings"`
}

// NewHTTP returns the pages of the console listener: /metrics from g, /healthz,
// /readyz, /api/status, and the overview at /. All of them only look.
func NewHTTP(d Deps, g prometheus.Gatherer, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", inTurn(promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling: promhttp.ContinueOnError,
	})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		reasons := d.notReady()
		status := http.StatusOK
		if len(reasons) > 0 {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, Readiness{len(reasons) == 0, reasons, d.warnings()})
	})
	mux.Handle("GET /api/status", inTurn(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, d.status())
	})))
	mux.Handle("GET /{$}", inTurn(newPage(&d, log)))
	return mux
}

// atOnce is how many answers of a kind are made at the same time.
const atOnce = 4

// inTurn has h make its answers a few at a time, and sends each when it is whole: what
// counts is the work of making one, and whoever reads slowly keeps nobody else waiting.
func inTurn(h http.Handler) http.Handler {
	turns := make(chan struct{}, atOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := whole{header: w.Header(), status: http.StatusOK}
		select {
		case turns <- struct{}{}:
		case <-r.Context().Done(): // who asked has gone
			return
		}
		func() {
			defer func() { <-turns }()
			h.ServeHTTP(&answer, r)
		}()
		w.Header().Set("Content-Length", strconv.Itoa(answer.body.Len()))
		w.WriteHeader(answer.status)
		_, _ = answer.body.WriteTo(w)
	})
}

// whole keeps an answer until it is complete.
type whole struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *whole) Header() http.Header         { return w.header }
func (w *whole) WriteHeader(status int)      { w.status = status }
func (w *whole) Write(p []byte) (int, error) { return w.body.Write(p) }
