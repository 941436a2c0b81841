package userside

import (
	"context"
	"net/netip"
	"time"
)

// LookupAgreementNumber is known to get_customer_id only.
const LookupAgreementNumber Lookup = "agreement_number"

// LookUpCustomers calls customer get_customer_id, the newer name of get_abon_id,
// in the way of FindCustomers.
func (c *Client) LookUpCustomers(ctx context.Context, by Lookup, what string, skipFormer bool) (IDs, error) {
	return c.find(ctx, actCustomerLookUp, by, what, skipFormer)
}

// CustomerByAccount calls customer get_data for a personal account of a billing.
// An unknown one is ErrNotFound.
func (c *Client) CustomerByAccount(ctx context.Context, account string, billing int64) (*Customer, error) {
	out := &Customers{}
	to := sink{
		reset:   func() { *out = Customers{} },
		whole:   func(v value) { c.readCustomers(out, v, nil) },
		missing: func(a *answer) bool { return !a.payload },
	}
	a, err := c.call(ctx, actCustomerGetData, arguments{}.text("account_number", account).id("billing_id", billing).values(), to)
	switch {
	case err != nil:
		return nil, err
	case len(out.Customers) > 0:
		return &out.Customers[0], nil
	case out.Defects.Count > 0:
		return nil, c.unknownShape(actCustomerGetData, a, "no customer can be recognised")
	}
	return nil, c.notFound(actCustomerGetData)
}

// CustomerGroup is one group of customers.
type CustomerGroup struct {
	ID   int64
	Name String
}

// CustomerGroups calls customer get_customer_group; servers from 3.19beta1 on.
func (c *Client) CustomerGroups(ctx context.Context) (*List[CustomerGroup], error) {
	return readList(ctx, c, actGroups, arguments{}, func(r recordReader) (CustomerGroup, bool) {
		g := CustomerGroup{ID: r.idOrKey("id"), Name: r.string("name")}
		return g, g.ID > 0
	})
}

// idOrKey takes the id of a row from a member, else from its key.
func (r recordReader) idOrKey(keys ...string) int64 {
	if id := r.id(keys...); id != 0 {
		return id
	}
	if r.at != nil && isDecimal(r.at.key) {
		id, _ := parseInt(r.at.key)
		return id
	}
	return 0
}

// LastIP calls customer get_last_ip: the last address that was given out, as a
// hint for the next one. It is invalid when there is none.
func (c *Client) LastIP(ctx context.Context) (netip.Addr, error) {
	text, err := c.scalar(ctx, actLastIP, arguments{})
	if err != nil {
		return netip.Addr{}, err
	}
	ip, err := ParseIP(string(text))
	if err != nil {
		return netip.Addr{}, c.badScalar(actLastIP, "an IPv4 address")
	}
	return ip, nil
}

// MACUse is one row of MACHistory, whose form is published nowhere: Raw has the
// row as it came. API page section 3.1, get_mac_history.
type MACUse struct {
	Time time.Time
	IP   netip.Addr // invalid: not told
	MAC  MAC        // zero: not told
	Raw  Map[any]
}

// MACHistory calls customer get_mac_history; servers from 3.16dev8 on.
func (c *Client) MACHistory(ctx context.Context, customer int64) (*List[MACUse], error) {
	return readList(ctx, c, actMACHistory, arguments{}.id("customer_id", customer), func(r recordReader) (MACUse, bool) {
		m := MACUse{
			Time: r.time("date", "datestop", "date_stop", "date_last", "date_add"), MAC: r.mac("mac", "usermac", "mac_address"),
			IP: field1(r, value.ip, "ip", "userip", "user_ip"), Raw: objectOf(r.v),
		}
		return m, m.MAC != (MAC{}) || m.IP.IsValid() || !m.Time.IsZero()
	})
}
