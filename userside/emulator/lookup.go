package emulator

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"html"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// getCustomersID answers get_customers_id: the ids of the customers that meet
// all conditions given; at least one must be given. Former customers are in it
// unless is_ex=0 leaves them out.
func getCustomersID(e *Emulator, r *request) (answer, error) {
	conds, err := conditions(r)
	if err != nil {
		return answer{}, err
	}
	limit := int64(0)
	if r.has("limit") {
		if limit, err = r.int("limit"); err != nil {
			return answer{}, err
		}
	}
	if len(conds) == 0 && limit <= 0 {
		return answer{}, badRequest("no condition given")
	}
	var ids []int64
	for _, c := range e.bulk(r) {
		if limit > 0 && int64(len(ids)) == limit {
			break
		}
		if !slices.ContainsFunc(conds, func(cond condition) bool { return !cond(c) }) {
			ids = append(ids, c.ID)
		}
	}
	if len(ids) == 0 && r.profile.old() {
		return answer{}, nil // old servers: OK and no data
	}
	return data(func(enc *encoder) {
		enc.list(func() {
			for _, id := range ids {
				enc.int(id)
			}
		})
	}), nil
}

// housesPerUnit makes up for the directory of addresses that the emulator lacks:
// unit 1, a street say, has the houses 1 to 10, unit 2 those from 11 to 20.
const housesPerUnit = 10

// condition says whether a customer is listed.
type condition func(*Customer) bool

// numberFilters are the filters of get_customers_id that compare a number.
func numberFilters() map[string]func(*Customer, int64) bool {
	return map[string]func(*Customer, int64) bool{
		"state_id":   func(c *Customer, n int64) bool { return int64(c.State) == n },
		"billing_id": func(c *Customer, n int64) bool { return cmp.Or(c.Billing, 1) == n },
		"house_id":   func(c *Customer, n int64) bool { return c.House == n },
		"mark_id":    func(c *Customer, n int64) bool { return slices.Contains(c.Marks, n) },
		"manager_id": func(c *Customer, n int64) bool { return c.Manager == n },
		"address_unit_id": func(c *Customer, n int64) bool {
			return c.House > 0 && (c.House-1)/housesPerUnit+1 == n
		},
		"is_ex": func(c *Customer, n int64) bool { return c.Former == (n == 1) },
		"is_corporate": func(c *Customer, n int64) bool {
			return c.Corporate == (n == 1)
		},
		"dependence_device_id": func(c *Customer, n int64) bool {
			return slices.ContainsFunc(c.Links, func(l Link) bool { return l.Device == n })
		},
	}
}

// textFilters are the filters that compare text.
func textFilters(like bool) map[string]func(*Customer, string) bool {
	return map[string]func(*Customer, string) bool{
		"name": func(c *Customer, s string) bool {
			if like {
				return strings.Contains(strings.ToLower(c.FullName), strings.ToLower(s))
			}
			return c.FullName == s
		},
		"tariff_id":      func(c *Customer, s string) bool { return c.Tariff == s },
		"account_number": func(c *Customer, s string) bool { return c.AccountNumber == s },
		"billing_uuid":   func(c *Customer, s string) bool { return c.BillingUID == s },
		"appartment":     func(c *Customer, s string) bool { return c.Apartment == s }, // sic
	}
}

// filterSince are the versions in which filters came. Older servers do not know
// them, and PHP overlooks what it does not know.
func filterSince() map[string]string {
	return map[string]string{
		"address_unit_id": "3.14.5", "date_connect_from": "3.14.41", "date_connect_to": "3.14.41", "state_id": "3.14.58",
		"dependence_device_id": "3.14.71", "mark_id": "3.13.35", "tariff_id": "3.13.48", "is_ex": "3.15.26",
		"is_like": "3.16dev3", "is_corporate": "3.18.10",
		"account_number": afterSeed, "billing_uuid": afterSeed, "manager_id": afterSeed,
	}
}

// conditions reads the filters of get_customers_id.
func conditions(r *request) ([]condition, error) {
	for name, since := range filterSince() {
		if r.before(since) {
			delete(r.params, name)
		}
	}
	var out []condition
	for name, holds := range numberFilters() {
		zero := name == "state_id" && r.param(name) == "0"
		if !r.has(name) || zero && r.style.stateZeroIgnore {
			continue
		}
		if zero && r.style.stateZeroAll {
			out = append(out, func(*Customer) bool { return true })
			continue
		}
		n, err := r.int(name)
		if err != nil {
			return nil, err
		}
		out = append(out, func(c *Customer) bool { return holds(c, n) })
	}
	for name, holds := range textFilters(r.flag("is_like")) {
		if r.has(name) {
			s := html.UnescapeString(r.param(name))
			out = append(out, func(c *Customer) bool { return holds(c, s) })
		}
	}
	for _, name := range []string{"date_connect_from", "date_connect_to"} {
		if !r.has(name) {
			continue
		}
		t, _, err := r.time(name)
		if err != nil {
			return nil, err
		}
		bound, from := r.day(t), name == "date_connect_from"
		out = append(out, func(c *Customer) bool {
			day := r.day(c.Connected)
			return !c.Connected.IsZero() && (from && day >= bound || !from && day <= bound)
		})
	}
	for _, name := range []string{"balance_from", "balance_to"} {
		if !r.has(name) {
			continue
		}
		bound, err := strconv.ParseFloat(r.param(name), 64)
		if err != nil {
			return nil, badRequest("parameter %s: not a number", name)
		}
		from := name == "balance_from"
		out = append(out, func(c *Customer) bool {
			balance := float64(c.BalanceCents) / 100
			return from && balance >= bound || !from && balance <= bound
		})
	}
	return out, nil
}

// getCustomerID answers get_abon_id and get_customer_id: the id, or a list of
// ids, of who has a login, an address, a phone...
func getCustomerID(e *Emulator, r *request) (answer, error) {
	value := html.UnescapeString(r.param("data_value"))
	var found []int64
	typer := r.param("data_typer")
	if r.quirks.BareLookups && (typer == "ip" || typer == "mac") {
		value = unbare(typer, value)
	}
	if typer == "ip" {
		if ip, err := netip.ParseAddr(value); err == nil {
			found = e.holders(ip)
			slices.Sort(found)
		}
	} else {
		match, err := lookup(typer, value)
		if err != nil {
			return answer{}, err
		}
		for _, c := range e.customerList() {
			if match(c) {
				found = append(found, c.ID)
			}
		}
	}
	if r.flag("is_skip_old") && !r.quirks.SkipOldIgnored {
		found = slices.DeleteFunc(found, func(id int64) bool { return e.customer(id).Former })
	}
	if len(found) == 0 {
		return answer{}, notFound("customer not found")
	}
	return answer{body: func(enc *encoder) {
		enc.key("Id") // capital in both generations
		if len(found) == 1 && !enc.idAsList {
			enc.int(found[0])
			return
		}
		enc.list(func() {
			for _, id := range found {
				enc.int(id)
			}
		})
	}}, nil
}

// unbare returns the usual form of an address that is a decimal number, or a MAC of
// bare digits, and nothing for another form.
func unbare(typer, value string) string {
	if typer == "mac" {
		b, err := hex.DecodeString(value)
		if err != nil || len(b) != len(MAC{}) {
			return ""
		}
		return MAC(b).String()
	}
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return ""
	}
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).String()
}

// lookup returns the test for a data_typer other than ip. Nobody matches a value
// whose form is wrong.
func lookup(typer, value string) (condition, error) {
	switch typer {
	case "account":
		return func(c *Customer) bool { return c.AccountNumber == value }, nil
	case "billing_uid", "codeti":
		return func(c *Customer) bool { return c.BillingUID == value }, nil
	case "dognumber", "agreement_number":
		return func(c *Customer) bool { return c.AgreementNumber == value }, nil
	case "login":
		return func(c *Customer) bool { return c.Login == value }, nil
	case "mail":
		return func(c *Customer) bool { return slices.Contains(c.Emails, value) }, nil
	case "phone":
		return func(c *Customer) bool { return slices.Contains(c.Phones, value) }, nil
	case "mac":
		mac, err := ParseMAC(value)
		return func(c *Customer) bool {
			return err == nil && !mac.IsZero() &&
				slices.ContainsFunc(c.Addresses, func(a Address) bool { return a.MAC == mac })
		}, nil
	default:
		return nil, badRequest("parameter data_typer: unknown type")
	}
}

// getCustomerGroup answers get_customer_group: the groups that customers are in.
func getCustomerGroup(e *Emulator, _ *request) (answer, error) {
	groups := map[int64]bool{1: true, 2: true, 3: true}
	for _, c := range e.customerList() {
		if c.Group != 0 {
			groups[c.Group] = true
		}
	}
	ids := make([]int64, 0, len(groups))
	for id := range groups {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return data(func(enc *encoder) {
		enc.keyed(true, func() {
			for _, id := range ids {
				enc.id(id)
				enc.object(func() {
					enc.intField("id", id)
					enc.textField("name", fmt.Sprintf("Group %d", id))
				})
			}
		})
	}), nil
}
