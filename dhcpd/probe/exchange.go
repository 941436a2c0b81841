package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Answer is how a server answered.
type Answer string

// The answers; Silence is none.
const (
	Offered Answer = "offer"
	Acked   Answer = "ack"
	Naked   Answer = "nak"
	// Of a leasequery.
	Active     Answer = "active"
	Unassigned Answer = "unassigned"
	Unknown    Answer = "unknown"

	Silence Answer = "silence"
	Other   Answer = "other" // a message of another type
)

// ParseAnswer reads offer, ack, nak, active, unassigned, unknown or silence.
func ParseAnswer(s string) (Answer, error) {
	switch a := Answer(s); a {
	case Offered, Acked, Naked, Active, Unassigned, Unknown, Silence:
		return a, nil
	}
	return "", fmt.Errorf("answer %q: want offer, ack, nak, active, unassigned, unknown or silence", s)
}

// Hoped is the answer that a client of this kind hopes for.
func (k Kind) Hoped() Answer { return k.info().answer }

// Step is one query and what came back.
type Step struct {
	Kind   Kind
	Answer Answer
	Reply  *dhcpv4.DHCPv4 // the first answer; nil for silence
	Took   time.Duration  // from the sending that was answered to the answer
	Sent   []Packet       // more than one: retries
	Got    []Packet       // more than one: with All
}

// Address is what the server gave or, asked by a leasequery, told of; invalid without an answer or an address.
func (s *Step) Address() netip.Addr {
	if s.Reply == nil {
		return netip.Addr{}
	}
	if s.Kind == LeaseQuery {
		return addressOf(s.Reply.ClientIPAddr)
	}
	return addressOf(s.Reply.YourIPAddr)
}

// ServerID is option 54 of the answer; invalid if it has none.
func (s *Step) ServerID() netip.Addr {
	if s.Reply == nil {
		return netip.Addr{}
	}
	return addressOf(s.Reply.ServerIdentifier())
}

func addressOf(ip []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// Client asks a server through a port.
type Client struct {
	Port    Port
	Timeout time.Duration // for one answer; 0: a second
	Retries int           // sendings after the first one
	All     bool          // wait for the answers of all servers, until the time is over
}

// Ask sends a query and waits for the answer. Silence is no error.
func (c *Client) Ask(ctx context.Context, q Query) (Step, error) {
	s := Step{Kind: q.Kind, Answer: Silence}
	if err := q.Check(); err != nil {
		return s, err
	}
	for q.XID == 0 {
		q.XID = rand.Uint32()
	}
	message := q.packet()
	timeout := c.Timeout
	if timeout == 0 {
		timeout = time.Second
	}
	for range 1 + c.Retries {
		p, err := c.Port.Send(message)
		if err != nil {
			return s, fmt.Errorf("send %s: %w", q.Kind, err)
		}
		s.Sent = append(s.Sent, p)
		if err := c.collect(ctx, &s, &q, p.Time, timeout); err != nil {
			return s, err
		}
		if s.Answer != Silence {
			break
		}
	}
	return s, nil
}

// collect takes answers to one sending.
func (c *Client) collect(ctx context.Context, s *Step, q *Query, sent time.Time, timeout time.Duration) error {
	deadline := sent.Add(timeout)
	if at, ok := ctx.Deadline(); ok && at.Before(deadline) {
		deadline = at
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		// In short turns, so that an end of ctx is noticed.
		turn := time.Now().Add(50 * time.Millisecond)
		if turn.After(deadline) {
			turn = deadline
		}
		p, err := c.Port.Receive(turn)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !turn.Before(deadline) {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case !p.fromServer || p.xid != q.XID || q.Kind != LeaseQuery && p.chaddr != [6]byte(q.MAC):
			continue
		}
		s.Got = append(s.Got, p)
		if s.Answer == Silence {
			s.Took = p.Time.Sub(sent)
			s.Reply, s.Answer = read(p.Payload)
		}
		if !c.All {
			return nil
		}
	}
}

func read(b []byte) (*dhcpv4.DHCPv4, Answer) {
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil, Other
	}
	switch m.MessageType() {
	case dhcpv4.MessageTypeOffer:
		return m, Offered
	case dhcpv4.MessageTypeAck:
		return m, Acked
	case dhcpv4.MessageTypeNak:
		return m, Naked
	case 11: // RFC 4388
		return m, Unassigned
	case 12:
		return m, Unknown
	case 13:
		return m, Active
	}
	return m, Other
}

// Exchange does the whole of DISCOVER, OFFER, REQUEST and ACK with the fields of
// q (its kind does not matter). It ends early if the DISCOVER is not answered by an OFFER.
func (c *Client) Exchange(ctx context.Context, q Query) ([]Step, error) {
	q.Kind = Discover
	for q.XID == 0 {
		q.XID = rand.Uint32()
	}
	offer, err := c.Ask(ctx, q)
	if err != nil || offer.Answer != Offered {
		return []Step{offer}, err
	}
	q.Kind, q.RequestedIP, q.ServerID = Selecting, offer.Address(), offer.ServerID()
	ack, err := c.Ask(ctx, q)
	return []Step{offer, ack}, err
}

// Lease is Exchange for who only wants the address.
func (c *Client) Lease(ctx context.Context, q Query) (netip.Addr, error) {
	steps, err := c.Exchange(ctx, q)
	if err != nil {
		return netip.Addr{}, err
	}
	last := &steps[len(steps)-1]
	if last.Answer != Acked {
		return netip.Addr{}, fmt.Errorf("%s was answered by %s", last.Kind, last.Answer)
	}
	return last.Address(), nil
}

// Packets returns everything that the step saw, in the order of time.
func (s *Step) Packets() []Packet {
	all := slices.Concat(s.Sent, s.Got)
	slices.SortStableFunc(all, func(a, b Packet) int { return a.Time.Compare(b.Time) })
	return all
}
