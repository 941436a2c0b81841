package console

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console/door"
)

// manyMetrics are more than the buffers between two sockets hold.
type manyMetrics struct{ help string }

func (manyMetrics) Describe(chan<- *prometheus.Desc) {}

func (m manyMetrics) Collect(ch chan<- prometheus.Metric) {
	desc := prometheus.NewDesc("usher_test_many", "Many.", []string{"x"}, nil)
	for i := range 200 {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, 1, fmt.Sprint(i, m.help))
	}
}

// Whoever reads the metrics slowly keeps nobody else from them.
func TestSlowReadersOfMetrics(t *testing.T) {
	w := newWorld(t)
	long := make([]byte, 100<<10)
	for i := range long {
		long[i] = 'x'
	}
	w.reg.MustRegister(manyMetrics{string(long)})
	ctx, cancel := context.WithCancel(t.Context())
	bound, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- ServeHTTP(ctx, netip.MustParseAddrPort("127.0.0.1:0"), NewHTTP(w.Deps, w.reg, quiet()), door.New(door.Options{}), quiet(), func(a net.Addr) { bound <- a })
	}()
	t.Cleanup(func() { cancel(); <-done })
	addr := (<-bound).String()
	for range 4 {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		require.NoError(t, err)
		_, err = c.Read(make([]byte, 1)) // the answer has begun
		require.NoError(t, err)
	}
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}} // to compress takes longest of all
	resp, err := client.Get("http://" + addr + "/metrics")
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Greater(t, n, int64(10<<20))
}
