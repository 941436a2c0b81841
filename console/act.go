package console

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/audit"
)

// peerKey is that of the *unix.Ucred of a connection, in its context.
type peerKey struct{}

// withPeer remembers who has connected.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if cred := peerOf(conn); cred != nil {
		return context.WithValue(ctx, peerKey{}, cred)
	}
	return ctx
}

// who returns who asks.
func (c *control) who(ctx context.Context) audit.Who {
	w := audit.Who{By: audit.BySocket}
	if cred, ok := ctx.Value(peerKey{}).(*unix.Ucred); ok {
		w.Process = &audit.Process{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid, User: c.names.Of(cred.Uid)}
	}
	return w
}

// statusErr is an error with the HTTP status that says whose it is.
type statusErr struct {
	status int
	error
}

func badRequest(err error) error { return statusErr{http.StatusBadRequest, err} }

// act serves a request that changes something. do fills in what the audit record
// says of it, beside who and how it ended, and may know better how that was.
func (c *control) act(name audit.Act, do func(*http.Request, *audit.Record) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rec := audit.Record{Act: name, DryRun: c.d.DryRun}
		v, err := do(r, &rec)
		if c.d.Audit != nil {
			if err != nil {
				rec.Error = err.Error()
			}
			if rec.Result == "" {
				rec.Result = resultOfAct(err)
			}
			rec.Time, rec.Who = c.d.now(), c.who(r.Context())
			c.d.Audit.Add(rec)
		}
		answer(w, v, err)
	}
}

// resultOfAct reads the result of an error: one with the status of a refusal is one.
func resultOfAct(err error) audit.Result {
	var known statusErr
	switch {
	case err == nil:
		return audit.Done
	case errors.As(err, &known) && (known.status < http.StatusInternalServerError || known.status == http.StatusNotImplemented):
		return audit.Refused
	default:
		return audit.Failed
	}
}

// answer writes v, or what went wrong.
func answer(w http.ResponseWriter, v any, err error) {
	var known statusErr
	switch {
	case errors.As(err, &known):
		writeError(w, known.status, known.error)
	case errors.Is(err, access.ErrNoSnapshot):
		writeError(w, http.StatusServiceUnavailable, fmt.Errorf("%w, so nothing is wanted yet: usher status says why", err))
	case err != nil:
		writeError(w, http.StatusInternalServerError, err)
	default:
		writeJSON(w, http.StatusOK, v)
	}
}
