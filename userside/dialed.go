package userside

import (
	"net/http"
	"net/http/httptrace"
	"net/netip"
)

// telling returns a transport that tells of the address of each connection that a request
// gets. It has one when the connection is made and, with https, the certificate at its other
// end is verified: an address that somebody gave for the ERP's name is not enough.
func telling(next http.RoundTripper, dialed func(netip.Addr)) http.RoundTripper {
	if dialed == nil {
		return next
	}
	return teller{next, dialed}
}

type teller struct {
	next   http.RoundTripper
	dialed func(netip.Addr)
}

// RoundTrip implements http.RoundTripper. The trace is the request's own: it takes up the one that the request has already.
func (t teller) RoundTrip(req *http.Request) (*http.Response, error) {
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if ap, err := netip.ParseAddrPort(i.Conn.RemoteAddr().String()); err == nil {
			t.dialed(ap.Addr().Unmap())
		}
	}}
	return t.next.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
}

// CloseIdleConnections is what http.Client asks its transport for.
func (t teller) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
