package erp

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside"
)

// written is an answer that is made while it is read: n members between head and
// tail. So the ERP's side of a benchmark takes neither memory nor a socket.
type written struct {
	member      func(b []byte, i int) []byte
	tail        string
	n, i        int
	buf, unread []byte
}

func answerOf(head, tail string, n int, member func(b []byte, i int) []byte) *written {
	return &written{member: member, tail: tail, n: n, unread: []byte(head)}
}

func (w *written) Read(p []byte) (int, error) {
	for len(w.unread) == 0 {
		w.buf = w.buf[:0]
		switch {
		case w.i > w.n:
			return 0, io.EOF
		case w.i == w.n:
			w.buf = append(w.buf, w.tail...)
		default:
			if w.i > 0 {
				w.buf = append(w.buf, ',')
			}
			w.buf = w.member(w.buf, w.i)
		}
		w.i++
		w.unread = w.buf
	}
	n := copy(p, w.unread)
	w.unread = w.unread[n:]
	return n, nil
}

func (w *written) Close() error { return nil }

// largeERP is an ERP of n customers with an address each on switches of 48 ports.
type largeERP int

func (n largeERP) RoundTrip(r *http.Request) (*http.Response, error) {
	body := []byte(r.URL.RawQuery)
	if r.Body != nil {
		more, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = append(append(body, '&'), more...)
	}
	args, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	const ok = `{"result":"OK","data":`
	out := &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: r}
	switch args.Get("cat") + "." + args.Get("action") + args.Get("state_id") {
	case "customer.get_ip_port_device_commutation":
		out.Body = answerOf(ok+"[", "]}", int(n), func(b []byte, i int) []byte {
			for _, part := range [...]struct {
				text string
				n    int
			}{
				{`{"customer_id":`, 1000 + i}, {`,"ip":"`, 0x64400000 + i}, {`","mac":"02005e`, 100_000 + i}, {`","device_id":`, 1 + i/48},
				{`,"device_ip":"198.18.`, i / 48 / 250}, {`.`, 1 + i/48%250}, {`","port":`, 1 + i%48},
			} {
				b = strconv.AppendInt(append(b, part.text...), int64(part.n), 10)
			}
			return append(b, '}')
		})
	case "customer.get_customers_id2":
		out.Body = answerOf(ok+"[", "]}", int(n)*9/10, func(b []byte, i int) []byte { return strconv.AppendInt(b, int64(1000+i), 10) })
	case "customer.get_customers_id1":
		out.Body = answerOf(ok+"[", "]}", int(n)-int(n)*9/10, func(b []byte, i int) []byte { return strconv.AppendInt(b, int64(1000+int(n)*9/10+i), 10) })
	case "device.get_data":
		out.Body = answerOf(ok+"{", "}}", int(n)/48+1, func(b []byte, i int) []byte {
			return fmt.Appendf(b, `"%d":{"id":"%d","host":"198.18.%d.%d","mac":"02005e%06x"}`, 1+i, 1+i, i/250, 1+i%250, i)
		})
	default:
		out.Body = answerOf(ok+"[", "]}", 0, nil)
	}
	return out, nil
}

// heapPeak watches the heap, garbage that still stands included, until stop.
func heapPeak() (stop func() uint64) {
	done := make(chan struct{})
	peak := uint64(0)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for {
			peak = max(peak, heapNow())
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() uint64 {
		close(done)
		wg.Wait()
		return peak
	}
}

// heapNow returns the bytes of all objects that are not yet swept.
func heapNow() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// BenchmarkRefresh is one whole refresh of 100,000 bindings, from the first
// request to the Snapshot, while the Snapshot before it is in use, as in the
// agent. peak/snapshot is the most heap in use meanwhile, the new Snapshot and
// garbage not yet collected included, over what the new Snapshot keeps.
func BenchmarkRefresh(b *testing.B) {
	const n = 100_000
	c, err := userside.New(userside.Options{URL: "http://192.0.2.1/api.php", Key: "k-12345", Transport: largeERP(n),
		ERPVersion: userside.Version{Major: 3, Minor: 19, Stage: userside.StageRelease}})
	require.NoError(b, err)
	f, err := New(c, Options{Bindings: ModeDirect})
	require.NoError(b, err)
	refresh := func(prev *provision.Snapshot) *provision.Snapshot {
		in, err := f.Fetch(ctx, prev)
		require.NoError(b, err)
		next, problems := provision.Build(in)
		require.Empty(b, problems)
		require.Equal(b, n, next.Len())
		return next
	}
	current := refresh(nil)
	current = refresh(current) // what the Fetcher remembers is there from now on
	var peak, kept uint64
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		runtime.GC()
		before := heapNow()
		b.StartTimer()
		stop := heapPeak()
		next := refresh(current)
		peak += stop() - before
		b.StopTimer()
		runtime.GC()
		kept += heapNow() - before
		runtime.KeepAlive(current)
		current = next
		b.StartTimer()
	}
	b.ReportMetric(float64(kept)/float64(b.N)/(1<<20), "snapshot-MiB")
	b.ReportMetric(float64(peak)/float64(b.N)/(1<<20), "peak-extra-MiB")
	b.ReportMetric(float64(peak)/float64(kept), "peak/snapshot")
}
