package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"html"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
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
	if len(ids) == 0 && r.profile == ProfileLegacy {
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
		"is_ex":      func(c *Customer, n int64) bool { return c.Former == (n == 1) },
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
		"tariff_id":         func(c *Customer, s string) bool { return c.Tariff == s },
		"account_number":    func(c *Customer, s string) bool { return c.AccountNumber == s },
		"billing_uuid":      func(c *Customer, s string) bool { return c.BillingUID == s },
		"appartment":        func(c *Customer, s string) bool { return c.Apartment == s }, // sic
		"date_connect_from": func(c *Customer, s string) bool { return !c.Connected.IsZero() && day(c.Connected) >= s },
		"date_connect_to":   func(c *Customer, s string) bool { return !c.Connected.IsZero() && day(c.Connected) <= s },
	}
}

func day(t time.Time) string { return t.Format(time.DateOnly) }

// conditions reads the filters of get_customers_id.
func conditions(r *request) ([]condition, error) {
	if r.has("address_unit_id") {
		return nil, badRequest("the filter address_unit_id is not emulated")
	}
	var out []condition
	for name, holds := range numberFilters() {
		if !r.has(name) || name == "state_id" && r.style.stateZeroIgnore && r.param(name) == "0" {
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
	if r.param("data_typer") == "ip" {
		if ip, err := netip.ParseAddr(value); err == nil {
			found = e.holders(ip)
			slices.Sort(found)
		}
	} else {
		match, err := lookup(r.param("data_typer"), value)
		if err != nil {
			return answer{}, err
		}
		for _, c := range e.customerList() {
			if match(c) {
				found = append(found, c.ID)
			}
		}
	}
	if r.flag("is_skip_old") {
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

// lookup gives the test for a data_typer other than ip. Nobody matches a value
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

// getCustomerData answers get_data: one id gives the customer, several give an
// object keyed by id, whose member "error" tells that some are unknown.
func getCustomerData(e *Emulator, r *request) (answer, error) {
	ids, err := dataIDs(e, r)
	if err != nil {
		return answer{}, err
	}
	var found []*Customer
	for _, id := range ids {
		if c := e.customer(id); c != nil {
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 0:
		return answer{}, notFound("customer not found")
	case len(ids) == 1:
		return data(func(enc *encoder) { enc.customer(r, found[0]) }), nil
	}
	return data(func(enc *encoder) {
		enc.keyed(true, func() {
			for _, c := range found {
				enc.id(c.ID)
				enc.customer(r, c)
			}
			if len(found) < len(ids) && !enc.listForMap {
				enc.strField("error", "customer not found")
			}
		})
	}), nil
}

// dataIDs reads whom get_data asks for: customer_id or id, or account_number
// with billing_id.
func dataIDs(e *Emulator, r *request) ([]int64, error) {
	for _, name := range []string{"customer_id", "id"} {
		if r.has(name) {
			return r.ids(name)
		}
	}
	if !r.has("account_number") || !r.has("billing_id") {
		return nil, badRequest("customer_id, or account_number with billing_id, is missing")
	}
	billing, err := r.int("billing_id")
	if err != nil {
		return nil, err
	}
	for _, c := range e.customerList() {
		if c.AccountNumber == r.param("account_number") && cmp.Or(c.Billing, 1) == billing {
			return []int64{c.ID}, nil
		}
	}
	return nil, notFound("customer not found")
}

// customer writes a customer as get_data and get_user_list have it (API page,
// section 3.3).
func (e *encoder) customer(r *request, c *Customer) {
	e.object(func() {
		e.intField("id", c.ID)
		e.textField("login", c.Login)
		e.textField("full_name", c.FullName)
		e.flagField("flag_corporate", c.Corporate)
		if c.Potential || e.optional() {
			e.flagField("is_potential", c.Potential)
		}
		e.strField("balance", money(c.BalanceCents))
		e.intField("state_id", int64(c.State))
		e.key("agreement")
		e.list(func() {
			if c.AgreementNumber != "" {
				e.object(func() {
					e.textField("number", c.AgreementNumber)
					e.strField("date", r.date(c.AgreementDate))
				})
			}
		})
		e.customerDates(r, c)
		e.flagField("is_disable", c.Disabled)
		e.customerAddress(c)
		e.customerBilling(r, c)
		if c.Group != 0 {
			e.key("group")
			e.keyed(true, func() { e.id(c.Group); e.object(func() { e.intField("id", c.Group) }) })
		}
		if len(c.Addresses) > 0 {
			e.key("ip_mac")
			e.ipMAC(c)
		}
		e.customerContacts(c)
		if len(c.Marks) > 0 {
			e.key("mark")
			e.keyed(true, func() {
				for _, m := range c.Marks {
					e.id(m)
					e.object(func() { e.intField("id", m) })
				}
			})
		}
	})
}

func (e *encoder) customerDates(r *request, c *Customer) {
	e.key("traffic")
	e.object(func() {
		e.key("month")
		e.object(func() { e.intField("up", 0); e.intField("down", 0) })
	})
	e.strField("date_create", r.date(c.Created))
	e.strField("date_connect", r.day(c.Connected))
	e.strField("date_activity", r.date(c.Active))
	e.strField("date_activity_inet", r.date(c.Active))
	e.strField("date_positive_balance", r.day(c.Active))
}

func (e *encoder) customerAddress(c *Customer) {
	e.key("address")
	e.list(func() {
		e.object(func() {
			e.strField("type", "connect")
			e.intField("house_id", c.House)
			if c.Apartment != "" {
				e.key("apartment")
				e.object(func() { e.textField("number", c.Apartment) })
			}
			if c.House != 0 {
				e.intField("entrance", int64(c.Entrance))
				e.strField("floor", strconv.Itoa(c.Floor))
			}
		})
	})
}

func (e *encoder) customerBilling(r *request, c *Customer) {
	e.flagField("is_in_billing", !c.NotInBilling)
	e.strField("billing_id", c.BillingUID) // despite its name: the id in the billing
	if r.profile != ProfileLegacy && e.optional() {
		e.key("billing")
		e.object(func() {
			e.intField("id", cmp.Or(c.Billing, 1))
			e.strField("uuid", c.BillingUID)
		})
	}
	e.key("tariff")
	e.object(func() {
		e.key("current")
		e.list(func() {
			if c.Tariff != "" {
				e.object(func() { e.strField("id", c.Tariff) })
			}
		})
	})
	if e.optional() {
		e.textField("account_number", c.AccountNumber)
		e.intField("manager_id", c.Manager)
	}
}

// customerContacts writes the contacts. The empty second phone is what live
// servers send.
func (e *encoder) customerContacts(c *Customer) {
	e.key("phone")
	e.list(func() {
		for i, p := range append(slices.Clip(c.Phones), "") {
			e.object(func() {
				e.textField("number", p)
				if i == 0 && p != "" {
					e.intField("flag_main", 1)
				}
			})
		}
	})
	if len(c.Emails) > 0 && e.optional() {
		e.key("email")
		e.list(func() {
			for i, m := range c.Emails {
				e.object(func() {
					e.textField("address", m)
					if i == 0 {
						e.intField("flag_main", 1)
					}
				})
			}
		})
	}
	if e.optional() {
		e.textField("comment", c.Comment)
	}
	e.strField("comment2", "")
}

// ipMAC writes ip_mac: keyed by the decimal address; entries without one, and
// subnets, by a counter.
func (e *encoder) ipMAC(c *Customer) {
	e.keyed(true, func() {
		n := int64(0)
		for _, a := range c.Addresses {
			if a.IP.IsValid() {
				e.id(int64(ipNumber(a.IP)))
			} else {
				e.id(n)
				n++
			}
			e.object(func() {
				e.decimalField("ip", int64(ipNumber(cmp.Or(a.IP, a.Net.Addr()))))
				e.strField("mac", a.MAC.hex())
				if a.Net.IsValid() {
					e.strField("ip_net", a.Net.String())
				}
			})
		}
	})
}

func money(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}

// getMACHistory answers get_mac_history. The rows are published nowhere: modern
// ones are {date, ip, mac}, legacy ones have the columns of the old table.
func getMACHistory(e *Emulator, r *request) (answer, error) {
	id, err := existing(e, r)
	if err != nil {
		return answer{}, err
	}
	date, ip := "date", "ip"
	if r.profile == ProfileLegacy {
		date, ip = "datestop", "userip"
	}
	recs := e.MACHistory(id)
	return data(func(enc *encoder) {
		enc.list(func() {
			for _, rec := range slices.Backward(recs) {
				enc.object(func() {
					enc.strField(date, r.date(rec.At))
					enc.decimalField(ip, int64(ipNumber(rec.IP)))
					enc.strField("mac", rec.MAC.hex())
				})
			}
		})
	}), nil
}

// existing reads customer_id and makes sure that there is such a customer.
func existing(e *Emulator, r *request) (int64, error) {
	id, err := r.int("customer_id")
	if err != nil {
		return 0, err
	}
	if e.customer(id) == nil {
		return 0, notFound("customer not found")
	}
	return id, nil
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

// setMACByIP answers set_mac_by_ip. An address that nobody has is refused; the
// documentation says nothing of the case.
func setMACByIP(e *Emulator, r *request) (answer, error) {
	ip, err := dotted(r, "ip")
	if err != nil {
		return answer{}, err
	}
	mac, err := colons(r)
	if err != nil {
		return answer{}, err
	}
	return answer{}, e.setIPMAC(ip, mac, quiet(r))
}

// stateChange answers state_change.
func stateChange(e *Emulator, r *request) (answer, error) {
	id, err := existing(e, r)
	if err != nil {
		return answer{}, err
	}
	s, err := r.int("state_id")
	if err != nil {
		return answer{}, err
	}
	if s < int64(StateStop) || s > int64(StateActive) {
		return answer{}, badRequest("parameter state_id: want 0, 1 or 2")
	}
	return answer{}, e.setState(id, State(s), quiet(r))
}

// ipAdd answers ip_add.
func ipAdd(e *Emulator, r *request) (answer, error) {
	id, err := existing(e, r)
	if err != nil {
		return answer{}, err
	}
	ip, err := dotted(r, "value")
	if err != nil {
		return answer{}, err
	}
	var mac MAC
	if r.has("mac") {
		if mac, err = colons(r); err != nil {
			return answer{}, err
		}
	}
	return answer{}, e.addIP(id, ip, mac, quiet(r))
}

// ipDelete answers ip_delete: an address, -1 for the entries with only a MAC, or all.
// Subnets have an action of their own and stay.
func ipDelete(e *Emulator, r *request) (answer, error) {
	id, err := existing(e, r)
	if err != nil {
		return answer{}, err
	}
	var match func(Address) bool
	bulk := true
	switch r.param("value") {
	case "-1":
		match = func(a Address) bool { return !a.IP.IsValid() && !a.Net.IsValid() }
	case "all":
		match = func(a Address) bool { return !a.Net.IsValid() }
	default:
		ip, err := dotted(r, "value")
		if err != nil {
			return answer{}, err
		}
		bulk = false
		match = func(a Address) bool { return a.IP == ip }
	}
	err = e.removeIPs(id, quiet(r), match)
	if bulk && errors.Is(err, ErrNotFound) {
		return answer{}, nil // nothing to delete is no mistake here
	}
	return answer{}, err
}

// quiet reads skip_internal_api: the change is kept from the feed.
func quiet(r *request) bool { return r.flag("skip_internal_api") }

func dotted(r *request, name string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(r.param(name))
	if err != nil || !ip.Is4() || ip.IsUnspecified() {
		return netip.Addr{}, badRequest("parameter %s: not a dotted IPv4 address", name)
	}
	return ip, nil
}

func colons(r *request) (MAC, error) {
	mac, err := ParseMAC(r.param("mac"))
	if err != nil || mac.IsZero() {
		return MAC{}, badRequest("parameter mac: want the form 00:11:22:33:44:55")
	}
	return mac, nil
}
