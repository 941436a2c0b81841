package userside

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	longer "github.com/usher-agent/usher/bench/long"
)

// long writes an answer in which something is repeated until n bytes are there, or until nobody reads any more.
func long(sent *atomic.Int64, n int64, before, again, after string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, before)
		chunk := strings.Repeat(again, 64<<10/len(again))
		for sent.Load() < n {
			k, err := io.WriteString(w, chunk)
			sent.Add(int64(k))
			if err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, after)
	}
}

// patient waits for a machine that does other things as well.
func patient(o *Options) { o.Timeout = 2 * time.Minute }

// allocated tells what f had allocated on its way, in bytes.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// An answer of 400 MiB takes little memory, wherever in it the text without an end is, and the error says
// which limit that was, and where.
func TestLongTextsAreBounded(t *testing.T) {
	const size = 400 << 20
	for name, tt := range map[string]struct{ before, after, where string }{
		"in a row":        {`{"result":"OK","data":[{"id":1},{"id":2,"comment":"`, `"}]}`, "data[1].comment: "},
		"in a map":        {`{"result":"OK","data":{"1001":{"full_name":"`, `"}}}`, "data.1001.full_name: "},
		"error":           {`{"result":"ERROR","error":"`, `"}`, "error: "},
		"result":          {`{"result":"`, `"}`, "result: "},
		"a key":           {`{"result":"OK","data":{"`, `":1}}`, ""},
		"the key of all":  {`{"`, `":1}`, ""},
		"a scalar":        {`{"result":"OK","data":"`, `"}`, "data: "},
		"deep in its row": {`{"result":"OK","data":[{"a":{"b":[0,{"c":"`, `"}]}}]}`, "data[0].a.b[1].c: "},
	} {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int64
			c := newTestClient(t, newTestServer(t, long(&sent, size, tt.before, "x", tt.after)), patient)
			var err error
			took := allocated(func() { _, err = c.CustomerBindings(ctx) })
			e := errorOf(t, err, ErrMalformed)
			require.ErrorIs(t, err, ErrTooLarge)
			require.Contains(t, e.Text, tt.where+"a text is longer than 1048576 bytes (at byte ")
			require.Contains(t, e.Text, "userside.max_text_kib")
			require.Less(t, took, uint64(24<<20))
			require.Less(t, sent.Load(), int64(32<<20), "the rest is not even read")
		})
	}
	t.Run("a number", func(t *testing.T) {
		var sent atomic.Int64
		c := newTestClient(t, newTestServer(t, long(&sent, size, `{"result":"OK","data":[{"id":`, "1", `}]}`)), patient)
		var err error
		require.Less(t, allocated(func() { _, err = c.CustomerBindings(ctx) }), uint64(24<<20))
		require.Contains(t, errorOf(t, err, ErrMalformed).Text, "data[0].id: a text is longer than")
	})
	t.Run("by configuration", func(t *testing.T) {
		text := strings.Repeat("x", 5<<10)
		doc := fmt.Sprintf(`{"result":"OK","data":{"1":{"id":1,"full_name":%q}}}`, text)
		_, err := clientOf(t, doc, func(o *Options) { o.MaxText = 4 }).Customer(ctx, 1)
		require.Contains(t, errorOf(t, err, ErrMalformed).Text, "a text is longer than 4096 bytes")
		_, err = clientOf(t, doc, func(o *Options) { o.MaxText = 5 }).Customer(ctx, 1)
		require.NoError(t, err)
	})
}

// What is kept of one value counts, not only how long its text is: of [0,0,...] that is many times as much.
func TestManySmallValuesAreBounded(t *testing.T) {
	for name, before := range map[string]string{"a row": `{"result":"OK","data":[[0`, "a payload read as one": `{"result":"OK","data":{"x":[0`} {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int64
			c := newTestClient(t, newTestServer(t, long(&sent, 7<<20, before, ",0", "]]}")), patient, func(o *Options) { o.MaxAnswer = 8 })
			var err error
			took := allocated(func() { _, err = c.CustomerBindings(ctx) })
			require.ErrorIs(t, err, ErrTooLarge)
			require.Contains(t, errorOf(t, err, ErrMalformed).Text, "a single value takes more than 8388608 bytes")
			require.Less(t, took, uint64(64<<20))
			require.Less(t, sent.Load(), int64(8<<20))
		})
	}
}

// The limit of an answer that refuses is another one, and the error does not name a key that changes nothing.
func TestErrorAnswersAreBounded(t *testing.T) {
	for size, want := range map[int]string{0: "answer is larger than 1048576 bytes, which is the limit for one that refuses", 1: "answer is larger than 1048576 bytes (the limit is userside.max_answer_mib)"} {
		srv := newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"result":"ERROR","data":[{"id":0}`+strings.Repeat(`,{"id":0}`, 1<<18)+`]}`)
		})
		_, err := newTestClient(t, srv, func(o *Options) { o.MaxAnswer = size }).CustomerBindings(ctx)
		require.ErrorIs(t, err, ErrTooLarge)
		require.Contains(t, errorOf(t, err, ErrMalformed).Text, want)
	}
}

// Of an id of two bytes eight are kept: a list of many is refused where they take too much, and
// the error says where. A list of as many customers as an answer has room for is none of them.
func TestIDsAreBounded(t *testing.T) {
	two := 2
	var sent atomic.Int64
	c := newTestClient(t, newTestServer(t, long(&sent, 16<<20, `{"result":"OK","data":[1`, ",1", "]}")), patient, func(o *Options) { o.MaxAnswer = 32 })
	var err error
	took := allocated(func() { _, err = c.CustomerIDs(ctx, CustomerFilter{State: &two}) })
	require.ErrorIs(t, err, ErrTooLarge)
	require.Contains(t, errorOf(t, err, ErrMalformed).Text, "data[1048576]: the ids together take more than 8388608 bytes (at byte ")
	require.Contains(t, err.Error(), "the limit is userside.max_answer_mib, a quarter of it)")
	require.Less(t, took, uint64(48<<20))
	require.Less(t, sent.Load(), int64(16<<20), "the rest is not even read")

	doc := `{"result":"OK","data":[` + strings.Repeat("1234567,", 30_000) + `1234567]}`
	ids, err := clientOf(t, doc, func(o *Options) { o.MaxAnswer = 1 }).CustomerIDs(ctx, CustomerFilter{State: &two})
	require.NoError(t, err)
	require.Len(t, ids, 30_001)
}

// The payload of any action is kept whole, and bounded as a row is.
func TestPayloadsAreBounded(t *testing.T) {
	var sent atomic.Int64
	c := newTestClient(t, newTestServer(t, long(&sent, 1<<20, `{"result":"OK","data":[0`, ",0", "]}")), patient, func(o *Options) { o.MaxAnswer = 2 })
	var err error
	took := allocated(func() { _, err = c.Call(ctx, "customer", "get_customers_id", url.Values{"state_id": {"2"}}) })
	require.ErrorIs(t, err, ErrTooLarge)
	require.Contains(t, errorOf(t, err, ErrMalformed).Text, "a single value takes more than 2097152 bytes")
	require.Less(t, took, uint64(24<<20))
}

// Lists are decoded as they come: however many rows there are, what they take is little.
func TestRowsAreNotKept(t *testing.T) {
	var sent atomic.Int64
	c := newTestClient(t, newTestServer(t, long(&sent, 24<<20, `{"result":"OK","data":[{"id":0}`, `,{"id":0,"void":"0123456789012345678901234567890123456789"}`, "]}")), patient)
	took := allocated(func() { _ = c.Try(ctx, "customer", "get_list", nil, false) })
	require.Less(t, took, uint64(9<<20))
	require.GreaterOrEqual(t, sent.Load(), int64(24<<20))
}

// Who looks at the form of answers holds no more of them than it needs, and hands all of it on.
func TestTapIsBounded(t *testing.T) {
	most := longer.Times(t, 16<<20, maxTapped)
	size := int64(most) + 1<<20
	var sent atomic.Int64
	srv := newTestServer(t, long(&sent, size, `{"result":"OK","data":["`, "x", `"]}`))
	heard := Heard{}
	c := newTestClient(t, srv, patient, func(o *Options) {
		o.Transport = &Tap{Next: http.DefaultTransport, Heard: func(h Heard) { heard = h }, most: most}
	})
	_, err := c.CustomerBindings(ctx)
	require.ErrorIs(t, err, ErrTooLarge)
	require.ErrorIs(t, heard.Err, errBodyLimit)
	require.GreaterOrEqual(t, sent.Load(), int64(most))
	_, err = ReadForm([]byte(`{"result":"OK","data":["` + strings.Repeat("x", 2<<20) + `"]}`))
	require.ErrorContains(t, err, "a text is longer than 1048576 bytes")

	var more atomic.Int64
	c = newTestClient(t, newTestServer(t, long(&more, 2<<20, `{"result":"OK","data":["`, "x", `"]}`)), func(o *Options) {
		o.Transport, o.MaxText = &Tap{Next: http.DefaultTransport, MaxText: 4 << 20, Heard: func(h Heard) { heard = h }}, 4<<10
	})
	_ = c.Try(ctx, "customer", "get_list", nil, false)
	require.NoError(t, heard.Err, "as long as the client takes them")
}
