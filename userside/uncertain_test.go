package userside

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A change is uncertain if it was sent and nothing that came says no.
func TestUncertain(t *testing.T) {
	write := func(c *Client) error { return c.ChangeState(ctx, 7, 1) }
	read := func(c *Client) error { _, err := c.Customer(ctx, 7); return err }
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		do     func(*Client) error
		want   bool
	}{
		"no answer in time":          {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, write, true},
		"connection closed":          {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, write, true},
		"closed within the answer":   {cutOff, write, true},
		"the proxy gave up":          {answerWith(504, "<html>gateway time-out</html>"), write, true},
		"an error of the server":     {answerWith(500, `{"error":"memory"}`), write, true},
		"no JSON":                    {answerWith(200, "<b>Warning</b>"), write, true},
		"nothing":                    {answerWith(200, ""), write, true},
		"no marker":                  {answerWith(200, `{}`), write, true},
		"a hook's 0":                 {answerWith(200, `{"result":"0","msg":"done"}`), write, true},
		"a hook's words alone":       {answerWith(200, `{"msg":"done"}`), write, true},
		"an error":                   {answerWith(200, `{"Result":"ERROR","ErrorText":"no"}`), write, false},
		"a marker of refusal":        {answerWith(200, `{"result":"ERROR"}`), write, false},
		"false":                      {answerWith(200, `{"result":false}`), write, false},
		"0 with an error":            {answerWith(200, `{"result":"0","error":"no"}`), write, false},
		"forbidden":                  {answerWith(403, "x"), write, false},
		"refused":                    {answerWith(400, `{"error":"no"}`), write, false},
		"too many requests":          {answerWith(429, "x"), write, false},
		"redirected":                 {answerWith(302, ""), write, false},
		"a read without an answer":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, read, false},
		"a read of a server in need": {answerWith(500, "x"), read, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, tt.answer)
			c := newTestClient(t, s, func(o *Options) {
				if name == "no answer in time" {
					o.Timeout = 50 * time.Millisecond
				}
			})
			err := tt.do(c)
			require.Error(t, err)
			if tt.want {
				require.ErrorIs(t, err, ErrUncertain)
				require.NotErrorIs(t, err, ErrRefused)
			} else {
				require.NotErrorIs(t, err, ErrUncertain)
			}
			require.Len(t, s.seen(), 1, "no change is sent twice")
		})
	}
}

// cutOff breaks the connection within an answer.
func cutOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, `{"result":`)
}

// What never had a connection was not sent.
func TestUnsentIsNotUncertain(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK"}`))
	s.Close()
	err := newTestClient(t, s).ChangeState(ctx, 7, 1)
	requireKind(t, err, ErrUnavailable)
	require.NotErrorIs(t, err, ErrUncertain, "nobody listens")

	l, err := net.Listen("tcp", "127.0.0.1:0") // connects, and never speaks TLS
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	c, err := New(Options{URL: "https://" + l.Addr().String() + "/api.php", Key: testKey, Timeout: 50 * time.Millisecond,
		ERPVersion: Version{Major: 3, Minor: 21, Stage: StageRelease}})
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	err = c.ChangeState(ctx, 7, 1)
	requireKind(t, err, ErrUnavailable)
	require.NotErrorIs(t, err, ErrUncertain, "no TLS session")

	over, cancel := context.WithCancel(ctx)
	cancel()
	err = newTestClient(t, newTestServer(t, answerWith(200, `{"result":"OK"}`))).ChangeState(over, 7, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrUncertain, "its turn never came")
}

// A connection that the server closes while a change is on its way: it is sent once,
// and nobody knows what became of it.
func TestUncertainOnAKeptConnection(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK"}`), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	c := newTestClient(t, s)
	require.NoError(t, c.ChangeState(ctx, 7, 1))
	require.ErrorIs(t, c.ChangeState(ctx, 7, 0), ErrUncertain)
	require.Len(t, s.seen(), 2)
}
