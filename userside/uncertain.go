package userside

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// connection tells whether a request may have left: without a connection it was
// certainly not sent.
type connection struct {
	wanted, got atomic.Bool // by what the transport tells
}

// follow makes the connection of a change known; of a read nobody asks.
func (c *connection) follow(ctx context.Context, spec *Action) context.Context {
	if !spec.Write {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { c.wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { c.got.Store(true) },
	})
}

// mayHaveSent reports whether a request was sent, or may have been: a transport of
// another kind tells nothing.
func (c *connection) mayHaveSent() bool { return c.got.Load() || !c.wanted.Load() }

// undecided reports whether a failure, of a change that was sent, leaves open
// whether the ERP made it: nothing that came says no.
func (f *failure) undecided() bool {
	switch {
	case errors.Is(f.Kind, ErrArgument):
		return false
	case f.Status == 0, f.Status >= http.StatusInternalServerError:
		return true
	case f.Status < 300:
		return errors.Is(f.Kind, ErrMalformed) || errors.Is(f.Kind, ErrUnknownShape) || errors.Is(f.Kind, ErrUnavailable)
	}
	return false
}
