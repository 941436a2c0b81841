package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/lease"
)

// LeaseDropper ends leases in every part that keeps something of one.
type LeaseDropper interface {
	// DropLease ends the live lease that mac has of ip, and returns when that is on disk. It reports whether mac had
	// one; with an error of the disk the lease is over, and only a crash would bring it back.
	DropLease(ip netip.Addr, mac provision.MAC) (bool, error)
}

// LeaseStanding is a lease and what it is now.
type LeaseStanding struct {
	LeaseView
	Live     bool   `json:"live"`     // the client may use the address
	Standing string `json:"standing"` // for people
}

// LeaseDropped is a lease that was ended.
type LeaseDropped struct {
	Lease LeaseView `json:"lease"` // as it was
	Ended time.Time `json:"ended"`
}

// dropRequest is the body of a drop. A MAC makes sure that the lease is the one
// that the operator looked at.
type dropRequest struct {
	MAC provision.MAC `json:"mac,omitzero"`
}

// leaseOf returns the record of the address that a request is about.
func (c *control) leaseOf(r *http.Request) (rec lease.Record, err error) {
	ip, err := netip.ParseAddr(r.PathValue("ip"))
	if err != nil || !ip.Is4() {
		return rec, badRequest(fmt.Errorf("%.60q: want an IPv4 address such as 198.51.100.17", r.PathValue("ip")))
	}
	var known bool
	if c.d.Leases != nil {
		rec, known = c.d.Leases.Get(ip)
	}
	if !known {
		return rec, statusErr{http.StatusNotFound, fmt.Errorf("there is no lease of %s; usher explain %[1]s says what is known of it", ip)}
	}
	return rec, nil
}

func (c *control) lease(w http.ResponseWriter, r *http.Request) {
	rec, err := c.leaseOf(r)
	now := c.d.now()
	v := LeaseStanding{LeaseView: LeaseView{Record: rec, Place: givenAt(&rec)}, Live: rec.Live(now), Standing: rec.Standing(now)}
	if c.d.Syncer != nil {
		v.Overruled = c.d.viewOverruled(&rec, c.d.Syncer.Current())
	}
	answer(w, v, err)
}

// dropLease serves the end of a lease by hand.
func (c *control) dropLease(r *http.Request, told *audit.Record) (any, error) {
	var req dropRequest
	if err := readJSON(r, &req); err != nil {
		return nil, badRequest(err)
	}
	rec, err := c.leaseOf(r)
	if err != nil {
		return nil, err
	}
	now := c.d.now()
	told.What = audit.What{IP: rec.IP, MAC: rec.MAC, Customer: rec.Subscriber, Before: rec.Standing(now)}
	conflict := func(format string, args ...any) error {
		return statusErr{http.StatusConflict, fmt.Errorf(format, args...)}
	}
	switch {
	case c.d.DryRun:
		return nil, conflict("this agent is a dry run: it answers nobody and ends no lease")
	case c.d.Dropper == nil:
		return nil, statusErr{http.StatusNotImplemented, errors.New("this agent cannot end leases")}
	case rec.State == lease.StateQuarantined && now.Before(rec.Expires):
		return nil, conflict("nobody has a lease of %s: it is %s, because somebody uses it to whom it was not given", rec.IP, rec.Standing(now))
	case !rec.Live(now):
		return nil, conflict("the lease of %s is over already (%s, %s), there is nothing to end", rec.IP, rec.MAC, rec.Standing(now))
	case !req.MAC.IsZero() && req.MAC != rec.MAC:
		return nil, conflict("%s is leased to %s by now and not to %s any more, look at it first", rec.IP, rec.MAC, req.MAC)
	}
	dropped, err := c.d.Dropper.DropLease(rec.IP, rec.MAC)
	switch {
	case err != nil:
		told.Result = audit.Partial
		return nil, fmt.Errorf("the lease of %s is over, but that could not be written to disk; it is tried again by itself, and only a crash before would bring it back: %w", rec.IP, err)
	case !dropped:
		return nil, conflict("the lease of %s changed meanwhile, look at it again", rec.IP)
	}
	return LeaseDropped{Lease: LeaseView{Record: rec, Place: givenAt(&rec)}, Ended: now}, nil
}

// Lease asks for the lease of an address.
func (c *Client) Lease(ctx context.Context, ip netip.Addr) (*LeaseStanding, error) {
	return call[LeaseStanding](ctx, c, http.MethodGet, "/v1/leases/"+ip.String(), nil)
}

// DropLease ends the lease of an address. A MAC that is not zero must be the one of its client.
func (c *Client) DropLease(ctx context.Context, ip netip.Addr, mac provision.MAC) (*LeaseDropped, error) {
	return call[LeaseDropped](ctx, c, http.MethodPost, "/v1/leases/"+ip.String()+"/drop", dropRequest{mac})
}
