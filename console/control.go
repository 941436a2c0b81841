package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/syncer"
)

const (
	maxControlBody = 64 << 10
	// changeTimeout bounds a change of state from the ERP's call to the kernel.
	changeTimeout = 2 * time.Minute
	// turnTimeout bounds the wait for changes of state that were asked for before.
	turnTimeout = 2 * time.Minute
)

// GuardView is what the guard holds and the limits that it holds by.
type GuardView struct {
	Limits  syncer.GuardLimits  `json:"limits"` // shares are 0..1
	Held    *syncer.HeldStatus  `json:"held,omitempty"`
	Changes []syncer.HeldChange `json:"changes,omitempty"` // that are held, customer by customer

	Rejected []syncer.HeldChange `json:"rejected,omitempty"` // that an operator rejected and the ERP did not take back since

	Sources []syncer.SourceStatus `json:"sources,omitempty"` // of the ERP that are held, not by the guard's limits
}

// guardRequest is the body of accept and reject. A fingerprint makes sure that
// what is decided on is what the operator looked at.
type guardRequest struct {
	Fingerprint string            `json:"fingerprint,omitempty"`
	Source      syncer.SourceName `json:"source,omitempty"` // of the ERP, in place of what the guard holds
}

// GuardResult says what was decided on.
type GuardResult struct {
	Action string             `json:"action"` // accepted or rejected
	Held   *syncer.HeldStatus `json:"held"`   // what was held

	Source *syncer.SourceStatus `json:"source,omitempty"` // that was held; nil: it was the guard's
}

// stateRequest is the body of a change of state.
type stateRequest struct {
	State provision.State `json:"state"`
}

// StateChange says what a change of state did and how long its two halves took.
type StateChange struct {
	Subscriber    provision.SubscriberID `json:"subscriber"`
	Before        provision.State        `json:"before"`
	State         provision.State        `json:"state"`
	Outcome       StateOutcome           `json:"outcome"`
	Detail        string                 `json:"detail,omitempty"` // why the ERP's answer is not known; empty: it said yes
	Addresses     []netip.Addr           `json:"addresses"`        // of the subscriber
	DryRun        bool                   `json:"dry_run"`          // the kernel was not touched
	ERPSeconds    float64                `json:"erp_seconds"`
	KernelSeconds float64                `json:"kernel_seconds"`
}

// errorBody is the body of every answer that is no success.
type errorBody struct {
	Error string `json:"error"`
}

// control serves the API of the unix socket.
type control struct {
	d     *Deps
	turns *turns       // of changes of state
	names *audit.Names // of those who ask
}

// NewControl returns the API that the sub-commands of usher talk to. Who may
// connect to its socket may use all of it.
func NewControl(d Deps) http.Handler {
	c := &control{d: &d, turns: newTurns(), names: audit.NewNames()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", c.status)
	mux.HandleFunc("GET /v1/explain", c.explain)
	mux.HandleFunc("GET /v1/option82", c.option82)
	mux.HandleFunc("GET /v1/option82/unknown", c.unknownOption82)
	mux.HandleFunc("GET /v1/pools", c.pools)
	mux.HandleFunc("GET /v1/senders", c.senders)
	mux.HandleFunc("GET /v1/guard", c.guard)
	mux.HandleFunc("POST /v1/guard/accept", c.act(audit.GuardAccept, c.accept))
	mux.HandleFunc("POST /v1/guard/reject", c.act(audit.GuardReject, c.reject))
	mux.HandleFunc("POST /v1/customer/{id}/state", c.act(audit.CustomerState, c.setState))
	mux.HandleFunc("GET /v1/routes", c.routes)
	mux.HandleFunc("GET /v1/leases/{ip}", c.lease)
	mux.HandleFunc("POST /v1/leases/{ip}/drop", c.act(audit.LeaseDrop, c.dropLease))
	c.handleACL(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Errorf("no such request: %s %.100s", r.Method, r.URL.Path))
	})
	return mux
}

func (c *control) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, c.d.status())
}

func (c *control) explain(w http.ResponseWriter, r *http.Request) {
	var source netip.Addr
	if s := r.URL.Query().Get("source"); s != "" {
		var err error
		if source, err = netip.ParseAddr(s); err != nil || !source.Is4() {
			writeError(w, http.StatusBadRequest, fmt.Errorf("source %.60q: want an IPv4 address", s))
			return
		}
	}
	x, err := c.d.explainFrom(r.Context(), r.URL.Query().Get("q"), source)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	writeJSON(w, http.StatusOK, x)
}

func (c *control) senders(w http.ResponseWriter, _ *http.Request) {
	if c.d.DHCP == nil {
		writeError(w, http.StatusNotFound, errors.New("DHCP is switched off (dhcp.enabled)"))
		return
	}
	writeJSON(w, http.StatusOK, c.d.DHCP.Senders())
}

func (c *control) guard(w http.ResponseWriter, _ *http.Request) {
	g := c.d.Syncer.GuardStatus()
	v := GuardView{Limits: g.Limits, Held: g.Held, Changes: g.Changes, Rejected: g.Rejected}
	for _, st := range c.d.Syncer.Status().Sources {
		if st.Judgement == syncer.JudgedHeld && !st.Guard && st.Source != syncer.SourceBindings && st.Source != syncer.SourceStates {
			v.Sources = append(v.Sources, st)
		}
	}
	writeJSON(w, http.StatusOK, v)
}

// accept puts into use what the guard holds, or what is held of one source.
func (c *control) accept(r *http.Request, rec *audit.Record) (any, error) {
	var req guardRequest
	if err := readJSON(r, &req); err != nil {
		return nil, badRequest(err)
	}
	switch {
	case req.Source == "":
		return c.decided("accepted", req.Fingerprint, rec, c.d.Syncer.Accept)
	case !slices.Contains(syncer.SourceNames(), req.Source):
		return nil, badRequest(fmt.Errorf("source %.30q: want one of %v", string(req.Source), syncer.SourceNames()))
	}
	rec.What.Source, rec.What.Fingerprint = string(req.Source), req.Fingerprint
	st, err := c.d.Syncer.AcceptSource(req.Source, req.Fingerprint)
	rec.What.Held = st.Error
	if st.Fingerprint != "" {
		rec.What.Fingerprint = st.Fingerprint
	}
	if err != nil {
		return nil, statusErr{http.StatusConflict, err}
	}
	return GuardResult{Action: "accepted", Source: &st}, nil
}

// reject forgets what is held.
func (c *control) reject(r *http.Request, rec *audit.Record) (any, error) {
	var req guardRequest
	if err := readJSON(r, &req); err != nil {
		return nil, badRequest(err)
	}
	if req.Source != "" {
		return nil, badRequest(errors.New("a source can only be accepted; as long as nobody does, it is held"))
	}
	return c.decided("rejected", req.Fingerprint, rec, c.d.Syncer.Reject)
}

// decided accepts or rejects what the guard holds. Whether it is what the operator looked at is compared in the same step.
func (c *control) decided(action, fingerprint string, rec *audit.Record, do func(fingerprint string) (*syncer.HeldStatus, error)) (any, error) {
	held, err := do(fingerprint)
	if held != nil {
		rec.What = audit.What{Fingerprint: held.Fingerprint, Held: held.Decision.Reason}
	}
	if errors.Is(err, syncer.ErrNothingHeld) || errors.As(err, new(*syncer.OtherHeldError)) {
		err = statusErr{http.StatusConflict, err}
	}
	if err != nil {
		return nil, err
	}
	return GuardResult{Action: action, Held: held}, nil
}

func (c *control) setState(r *http.Request, rec *audit.Record) (any, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id <= 0 {
		return nil, badRequest(fmt.Errorf("customer %.30q: want the number of a customer", r.PathValue("id")))
	}
	rec.What.Customer = provision.SubscriberID(id)
	var req stateRequest
	if err := readJSON(r, &req); err != nil {
		return nil, badRequest(err)
	}
	if _, ok := req.State.ERP(); !ok {
		return nil, badRequest(errors.New("state: want stop, pause or active"))
	}
	rec.What.State = req.State.String()
	if c.d.DryRun {
		return nil, statusErr{http.StatusConflict, errors.New("this agent is a dry run: it changes nothing in the ERP or in the kernel")}
	}
	if c.d.ERP == nil {
		return nil, statusErr{http.StatusNotImplemented, errors.New("this agent cannot change states in the ERP")}
	}
	called, done, err := c.takeTurn(r.Context(), provision.SubscriberID(id))
	if err != nil {
		return nil, err
	}
	defer done()
	// Whoever asked may go away; a change that the ERP has taken must still
	// reach the kernel.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
	defer cancel()
	change, err := c.d.changeState(ctx, provision.SubscriberID(id), req.State, called)
	rec.What.Before, rec.What.Addresses, rec.KernelDryRun = change.Before.String(), change.Addresses, change.DryRun
	rec.Error = change.Detail
	switch {
	case errors.As(err, new(kernelLags)):
		rec.Result = audit.Partial
	case change.Outcome == StateUncertain:
		rec.Result = audit.Uncertain
	}
	if err != nil {
		return nil, err
	}
	return change, nil
}

// takeTurn waits until it is a change's turn.
func (c *control) takeTurn(ctx context.Context, id provision.SubscriberID) (called, done func(), err error) {
	wait, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	called, done, ok := c.turns.take(wait, id)
	switch {
	case ok:
		return called, done, nil
	case ctx.Err() != nil:
		return nil, nil, statusErr{http.StatusRequestTimeout, errors.New("who asked went away before it was their turn, nothing was done")}
	}
	return nil, nil, statusErr{http.StatusServiceUnavailable, fmt.Errorf("earlier changes of state wait for the ERP for more than %s, nothing was done", turnTimeout)}
}

// kernelLags is the error of a change that the ERP has taken and the kernel has not.
type kernelLags struct{ error }

// changeState asks the ERP, applies its yes at once and waits for the kernel. Where
// nobody knows what the ERP did, its card of the subscriber tells. called is called when the ERP's call ended.
func (d *Deps) changeState(ctx context.Context, id provision.SubscriberID, st provision.State, called func()) (StateChange, error) {
	snap := d.Syncer.Current()
	ch := StateChange{Subscriber: id, Before: snap.State(id), State: st, Addresses: []netip.Addr{}}
	for _, b := range rowsOf(snap.BySubscriber(id)) {
		ch.Addresses = append(ch.Addresses, b.ip)
	}
	start := time.Now()
	err := d.askState(ctx, id, st, &ch, called)
	ch.ERPSeconds = time.Since(start).Seconds()
	if err != nil {
		status := http.StatusBadGateway
		if errors.Is(err, provision.ErrRefused) {
			status = http.StatusConflict
		}
		return ch, statusErr{status, fmt.Errorf("the ERP did not take the change, nothing was done here: %w", err)}
	}
	if ch.Outcome == StateUncertain {
		d.Syncer.Hint(id) // it is read again here; later polls see what comes later
		return ch, nil
	}
	start = time.Now()
	d.Syncer.Override(id, st, d.now())
	if d.Enforcer == nil {
		return ch, nil
	}
	ch.DryRun = d.Enforcer.Status().DryRun
	if err := d.Enforcer.Sync(ctx); err != nil {
		return ch, kernelLags{fmt.Errorf("the ERP took the change, but the kernel has not followed; it is tried again by itself: %w", err)}
	}
	ch.KernelSeconds = time.Since(start).Seconds()
	for _, r := range d.Enforcer.Status().Refused { // all others of the round hold
		if ip, err := netip.ParseAddr(r.Element); err == nil && slices.Contains(ch.Addresses, ip) {
			return ch, kernelLags{fmt.Errorf("the ERP took the change, but the kernel has not followed; it is tried again by itself: %s", r.Text())}
		}
	}
	return ch, nil
}

// readJSON reads a body of known keys; no body at all is the zero value.
func readJSON(r *http.Request, into any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxControlBody+1))
	switch {
	case err != nil:
		return fmt.Errorf("read body: %w", err)
	case len(body) > maxControlBody:
		return fmt.Errorf("body: larger than %d bytes", maxControlBody)
	case len(body) == 0:
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil { // not with our own types
		status, body = http.StatusInternalServerError, []byte(`{"error": "the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the reader may have gone
}

func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, errorBody{err.Error()})
}
