package userside

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CustomerFilter are the conditions of CustomerIDs; those that are set must all
// hold. API page section 3.1, get_customers_id.
type CustomerFilter struct {
	State           *int     // 0 stop, 1 pause, 2 active. Whether 0 alone counts as a condition is unknown
	BalanceFrom     *float64 // money
	BalanceTo       *float64
	BillingID       int64
	BillingUUID     string // newer servers
	AccountNumber   string // newer servers
	HouseID         int64
	AddressUnitID   int64
	Apartment       string // sent as appartment, the ERP's spelling
	ConnectedFrom   time.Time
	ConnectedTo     time.Time
	DependsOnDevice int64
	MarkID          int64
	TariffID        int64
	ManagerID       *int64 // 0: without manager; newer servers
	Corporate       *bool
	Former          *bool // is_ex
	Name            string
	NameLike        bool // Name is a part
	Limit           int
}

func (f CustomerFilter) values(loc *time.Location) url.Values {
	a := arguments{}
	if f.State != nil {
		a.text("state_id", strconv.Itoa(*f.State))
	}
	a.moneySet("balance_from", f.BalanceFrom).moneySet("balance_to", f.BalanceTo)
	a.id("billing_id", f.BillingID).text("billing_uuid", f.BillingUUID).text("account_number", f.AccountNumber)
	a.id("house_id", f.HouseID).id("address_unit_id", f.AddressUnitID).text("appartment", f.Apartment)
	a.date("date_connect_from", f.ConnectedFrom, loc).date("date_connect_to", f.ConnectedTo, loc)
	a.id("dependence_device_id", f.DependsOnDevice).id("mark_id", f.MarkID).id("tariff_id", f.TariffID).idSet("manager_id", f.ManagerID)
	a.flagSet("is_corporate", f.Corporate).flagSet("is_ex", f.Former)
	a.text("name", f.Name).flag("is_like", f.NameLike)
	return a.values()
}

// CustomerIDs calls customer get_customers_id: the ids of the customers that
// meet all conditions, of which there must be one. No hit is an empty answer,
// not an error. API page section 3.1.
func (c *Client) CustomerIDs(ctx context.Context, filter CustomerFilter) (IDs, error) {
	args := filter.values(c.opts.Location)
	delete(args, "is_like")
	if len(args) == 0 {
		return nil, c.argument(actCustomerIDs, "no condition")
	}
	args = filter.values(c.opts.Location)
	if filter.Limit > 0 {
		args.Set("limit", strconv.Itoa(filter.Limit))
	}
	var out IDs
	bad := 0
	to := sink{
		reset: func() { out, bad = nil, 0 },
		member: func(_ []byte, _ int, v value) {
			if v.kind() == kindObject {
				v = v.first("id", "Id", "customer_id")
			}
			if len(out) == cap(out) {
				out = slices.Grow(out, len(out)+64) // doubled: half the garbage of append's steps
			}
			var err error
			if out, err = v.appendIDs(out); err != nil {
				bad++
			}
		},
		ids: func() int { return len(out) },
	}
	a, err := c.call(ctx, actCustomerIDs, args, to)
	if err != nil {
		return nil, err
	}
	if len(out) == 0 && a.list != "" {
		if out, err = listIDs(a.list); err != nil {
			bad++
		}
	}
	if len(out) == 0 {
		out = a.ids
	}
	if bad > 0 && len(out) == 0 {
		return nil, c.unknownShape(actCustomerIDs, a, fmt.Sprintf("%d members are no ids", bad))
	}
	return out, nil
}

// listIDs reads "1,2,3".
func listIDs(s string) (IDs, error) {
	t := tree{nodes: []node{{kind: kindString, textTo: uint32(len(s)), next: 1}}, text: []byte(s)}
	return value{t: &t}.ids()
}

// Lookup names what FindCustomers searches by: data_typer of get_abon_id.
type Lookup string

// The lookups of API page section 3.1.
const (
	LookupAccount    Lookup = "account"
	LookupBillingUID Lookup = "billing_uid"
	LookupBillingID  Lookup = "codeti"
	LookupAgreement  Lookup = "dognumber"
	LookupIP         Lookup = "ip"
	LookupLogin      Lookup = "login"
	LookupMAC        Lookup = "mac"
	LookupMail       Lookup = "mail"
	LookupPhone      Lookup = "phone"
)

// FindCustomers calls customer get_abon_id. Several customers may share a phone
// or an address. skipFormer leaves out former customers. No hit is ErrNotFound.
//
// The format that the server expects of an address is not documented: the
// dotted and the colon form are tried first, then once the decimal number and
// the bare digits (API page section 11).
func (c *Client) FindCustomers(ctx context.Context, by Lookup, what string, skipFormer bool) (IDs, error) {
	return c.find(ctx, actCustomerFind, by, what, skipFormer)
}

func (c *Client) find(ctx context.Context, act action, by Lookup, what string, skipFormer bool) (IDs, error) {
	spellings := Spellings(by, what)
	switch by {
	case LookupIP:
		if spellings == nil {
			return nil, c.argument(act, "no IPv4 address")
		}
	case LookupMAC:
		if spellings == nil {
			return nil, c.argument(act, "no MAC")
		}
	case LookupAccount, LookupBillingUID, LookupBillingID, LookupAgreement, LookupLogin, LookupMail, LookupPhone, LookupAgreementNumber:
		if strings.TrimSpace(what) == "" {
			return nil, c.argument(act, "nothing to look for")
		}
	default:
		return nil, c.argument(act, "unknown kind of lookup")
	}
	var err error
	for _, s := range spellings {
		args := url.Values{"data_typer": {string(by)}, "data_value": {s}}
		if skipFormer {
			args.Set("is_skip_old", "1")
		}
		var a *answer
		a, err = c.call(ctx, act, args, sink{missing: func(a *answer) bool { return len(a.ids) == 0 }})
		if err == nil && len(a.ids) > 0 {
			return a.ids, nil
		}
		if err == nil {
			err = c.notFound(act)
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	return nil, err
}

// Spellings returns the ways to write what is looked for, each once: an address
// dotted and as a decimal number, a MAC with colons and bare, anything else as it
// is. It is nil for what is no address or no MAC.
func Spellings(by Lookup, what string) []string {
	switch by {
	case LookupIP:
		ip, err := ParseIP(what)
		if err != nil || !ip.IsValid() {
			return nil
		}
		b := ip.As4()
		return []string{ip.String(), strconv.FormatUint(uint64(binary.BigEndian.Uint32(b[:])), 10)}
	case LookupMAC:
		mac, err := ParseMAC(what)
		if err != nil || mac == (MAC{}) {
			return nil
		}
		return []string{mac.String(), hex.EncodeToString(mac[:])}
	}
	return []string{what}
}

// notFound is for an answer that is OK and empty where one thing was looked for.
func (c *Client) notFound(act action) error {
	return &c.fail(act.row(), http.StatusOK, ErrNotFound, "", nil).Error
}

// SetMACByIP calls customer set_mac_by_ip: the ERP is told which MAC uses an
// address that belongs to one of its customers. An address that belongs to
// nobody is expected to be ErrRefused. API page section 3.2.
func (c *Client) SetMACByIP(ctx context.Context, ip netip.Addr, mac MAC) error {
	switch {
	case !ip.Is4() || ip.IsUnspecified():
		return c.argument(actCustomerSetMAC, "no IPv4 address")
	case mac == MAC{}:
		return c.argument(actCustomerSetMAC, "no MAC")
	}
	_, err := c.call(ctx, actCustomerSetMAC, url.Values{"ip": {ip.String()}, "mac": {mac.String()}}, sink{})
	return err
}

// ChangeState calls customer state_change: 0 stop, 1 pause, 2 active. API page
// section 3.2 and 4.
func (c *Client) ChangeState(ctx context.Context, customer int64, state int) error {
	switch {
	case customer <= 0:
		return c.argument(actCustomerStateChange, "customer id must be positive")
	case state < 0 || state > 2:
		return c.argument(actCustomerStateChange, "state must be 0, 1 or 2")
	}
	args := url.Values{"customer_id": {strconv.FormatInt(customer, 10)}, "state_id": {strconv.Itoa(state)}}
	_, err := c.call(ctx, actCustomerStateChange, args, sink{})
	return err
}

// Customers is the answer of Customers.
type Customers struct {
	Customers []Customer
	Missing   []int64 // asked for, and not in the answer; nobody where it has cards that were not asked for
	Defects   Defects
}

// Customer calls customer get_data for one id. An unknown one is ErrNotFound:
// an answer without data, with status 200 or 404. API page section 3.3.
func (c *Client) Customer(ctx context.Context, id int64) (*Customer, error) {
	all, err := c.Customers(ctx, []int64{id})
	switch {
	case err != nil:
		return nil, err
	case len(all.Customers) == 0:
		return nil, c.notFound(actCustomerGetData)
	}
	return &all.Customers[0], nil
}

// Customers calls customer get_data once for all ids; a long list travels by
// POST. How many ids a server takes is not known, so callers batch them (a few
// hundred). One id answers the customer itself, several an object keyed by id;
// either is understood in both cases. Cards of others than were asked for are
// dropped. API page section 3.3.
func (c *Client) Customers(ctx context.Context, ids []int64) (*Customers, error) {
	if len(ids) == 0 {
		return &Customers{}, nil
	}
	list := make([]byte, 0, 8*len(ids))
	for i, id := range ids {
		if id <= 0 {
			return nil, c.argument(actCustomerGetData, "customer id must be positive")
		}
		if i > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendInt(list, id, 10)
	}
	out := &Customers{}
	to := sink{
		reset: func() { *out = Customers{} },
		whole: func(v value) { c.readCustomers(out, v, ids) },
	}
	if len(ids) == 1 {
		to.missing = func(a *answer) bool { return !a.payload }
	}
	a, err := c.call(ctx, actCustomerGetData, url.Values{"customer_id": {string(list)}}, to)
	if err != nil {
		return nil, err
	}
	out.own(ids)
	if len(out.Customers) == 0 && a.payload && out.Defects.Count > 0 {
		return nil, c.unknownShape(actCustomerGetData, a, "no customer can be recognised: "+out.Defects.First[0].What)
	}
	return out, nil
}

// own drops the cards that nobody asked for, and of a customer with two different ones both: none of them is an answer to what
// was asked. Who is without a card then is missing, unless there was something to drop.
func (out *Customers) own(asked []int64) {
	wanted := make(map[int64]int, len(asked)) // the card; -1: none yet, -2: two
	for _, id := range asked {
		wanted[id] = -1
	}
	foreign, twice := 0, 0
	for i := range out.Customers {
		switch at, ours := wanted[out.Customers[i].ID]; {
		case !ours:
			foreign++
		case at == -1:
			wanted[out.Customers[i].ID] = i
		case at >= 0 && !reflect.DeepEqual(out.Customers[at], out.Customers[i]):
			wanted[out.Customers[i].ID] = -2
			twice++
		}
	}
	i := -1
	out.Customers = slices.DeleteFunc(out.Customers, func(c Customer) bool {
		i++
		at, ours := wanted[c.ID]
		return !ours || at != i
	})
	if foreign > 0 {
		out.Defects.add("data", fmt.Sprintf("%d cards of customers who were not asked for", foreign))
	}
	if twice > 0 {
		out.Defects.add("data", fmt.Sprintf("two different cards of %d customers", twice))
	}
	if foreign+twice > 0 {
		return
	}
	for id, at := range wanted {
		if at == -1 {
			out.Missing = append(out.Missing, id)
		}
	}
	slices.Sort(out.Missing)
}

// readCustomers tells one customer from a map of them: a map has no member id,
// or only decimal keys. asked are the ids that a key may stand for; nil: any.
func (c *Client) readCustomers(out *Customers, v value, asked []int64) {
	if v.kind() == kindObject && v.get("id").kind() != kindAbsent {
		c.readCustomer(out, v, nil, nil)
		return
	}
	i := 0
	for m := range v.all {
		at := &place{index: i}
		i++
		if v.kind() == kindObject {
			at.key = m.key()
			if string(m.key()) == "error" {
				continue // stands for the ids that are missing
			}
		}
		if m.kind() != kindObject {
			if !m.empty() {
				out.Defects.add(at.String(), m.kind().String()+" where a customer is wanted")
			}
			continue
		}
		c.readCustomer(out, m, at, asked)
	}
}

func (c *Client) readCustomer(out *Customers, v value, at *place, asked []int64) {
	r := recordReader{v: v, at: at, defects: &out.Defects, loc: c.opts.Location}
	customer := r.customer()
	if customer.ID == 0 && at != nil && isDecimal(at.key) {
		if id, _ := parseInt(at.key); asked == nil || slices.Contains(asked, id) { // else it may only count
			customer.ID = id
		}
	}
	if customer.ID <= 0 {
		out.Defects.add(at.String(), "customer without id")
		return
	}
	out.Customers = append(out.Customers, customer)
}
