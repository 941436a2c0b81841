package console

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"

	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
)

// ErrNoAgent means that nobody answers on the control socket.
var ErrNoAgent = errors.New("no agent answers")

// Client talks to a running agent over its control socket. It opens a
// connection for each call.
type Client struct {
	Socket string // path, such as /run/usher/usher.sock
}

// StatusError is an answer of the agent that is no success.
type StatusError struct {
	Code int // HTTP status
	Text string
}

// Error returns the agent's own words.
func (e *StatusError) Error() string { return e.Text }

// Status asks how the agent is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Explain asks about an IPv4 address, a MAC or a customer id.
func (c *Client) Explain(ctx context.Context, q string) (*Explanation, error) {
	return c.ExplainFrom(ctx, q, netip.Addr{})
}

// ExplainFrom asks as Explain does, and what would become of the client's packet if its relay sent from an address.
func (c *Client) ExplainFrom(ctx context.Context, q string, source netip.Addr) (*Explanation, error) {
	v := url.Values{"q": {q}}
	if source.IsValid() {
		v.Set("source", source.String())
	}
	return call[Explanation](ctx, c, http.MethodGet, "/v1/explain?"+v.Encode(), nil)
}

// Senders asks who brought clients' packets: every relay and switch that is remembered.
func (c *Client) Senders(ctx context.Context) (*senders.Status, error) {
	return call[senders.Status](ctx, c, http.MethodGet, "/v1/senders", nil)
}

// Option82 asks what an option 82 says and would lead to. relay may be invalid,
// mac zero.
func (c *Client) Option82(ctx context.Context, payload []byte, relay netip.Addr, mac provision.MAC) (*Option82View, error) {
	q := url.Values{"value": {hex.EncodeToString(payload)}}
	if relay.IsValid() {
		q.Set("giaddr", relay.String())
	}
	if !mac.IsZero() {
		q.Set("mac", mac.String())
	}
	return call[Option82View](ctx, c, http.MethodGet, "/v1/option82?"+q.Encode(), nil)
}

// UnknownOption82 asks for the values lately seen that led to no port.
func (c *Client) UnknownOption82(ctx context.Context) (*Option82Unknowns, error) {
	return call[Option82Unknowns](ctx, c, http.MethodGet, "/v1/option82/unknown", nil)
}

// Routes asks for the routes that are wanted and those that the kernel has.
func (c *Client) Routes(ctx context.Context) (*RoutesView, error) {
	return call[RoutesView](ctx, c, http.MethodGet, "/v1/routes", nil)
}

// Guard asks what the guard holds.
func (c *Client) Guard(ctx context.Context) (*GuardView, error) {
	return call[GuardView](ctx, c, http.MethodGet, "/v1/guard", nil)
}

// AcceptHeld publishes what the guard holds. A fingerprint that is not empty
// must be the one of what is held.
func (c *Client) AcceptHeld(ctx context.Context, fingerprint string) (*GuardResult, error) {
	return call[GuardResult](ctx, c, http.MethodPost, "/v1/guard/accept", guardRequest{Fingerprint: fingerprint})
}

// AcceptSource puts what is held of one source of the ERP into use, with the next whole fetch. A
// fingerprint that is not empty must be the one of what is held.
func (c *Client) AcceptSource(ctx context.Context, name syncer.SourceName, fingerprint string) (*GuardResult, error) {
	return call[GuardResult](ctx, c, http.MethodPost, "/v1/guard/accept", guardRequest{Source: name, Fingerprint: fingerprint})
}

// RejectHeld forgets what the guard holds; see AcceptHeld.
func (c *Client) RejectHeld(ctx context.Context, fingerprint string) (*GuardResult, error) {
	return call[GuardResult](ctx, c, http.MethodPost, "/v1/guard/reject", guardRequest{Fingerprint: fingerprint})
}

// SetState changes a subscriber's state in the ERP and returns when the kernel
// has followed.
func (c *Client) SetState(ctx context.Context, id provision.SubscriberID, st provision.State) (*StateChange, error) {
	return call[StateChange](ctx, c, http.MethodPost, fmt.Sprintf("/v1/customer/%d/state", id), stateRequest{st})
}

func call[T any](ctx context.Context, c *Client, method, path string, in any) (*T, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://usher"+path, body)
	if err != nil {
		return nil, err
	}
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
		},
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, c.explainDial(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the agent's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var e errorBody
		if json.Unmarshal(data, &e) != nil || e.Error == "" {
			e.Error = fmt.Sprintf("the agent on %s answers with status %d", c.Socket, resp.StatusCode)
		}
		return nil, &StatusError{resp.StatusCode, e.Error}
	}
	out := new(T)
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("the answer on %s is not that of this version of usher: %w", c.Socket, err)
	}
	return out, nil
}

// explainDial says what to look at.
func (c *Client) explainDial(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w on %s: is `usher run` active, and is this its control.socket?", ErrNoAgent, c.Socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied: be root or a member of the socket's group (control.group)", c.Socket)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	default:
		return fmt.Errorf("talk to the agent on %s: %w", c.Socket, err)
	}
}
