package emulator

import (
	"html"
	"slices"
	"strconv"
	"strings"
	"time"
)

// alter changes the customer whose id the parameter name has. It answers with
// the marker only; an fn that finds nothing to do gives errNothing, and the feed
// is not told.
func alter(e *Emulator, r *request, name string, kind ChangeKind, fn func(c *Customer, now time.Time) error) (answer, error) {
	id, err := existingAs(e, r, name)
	if err != nil {
		return answer{}, err
	}
	return answer{}, e.changeCustomer(id, quiet(r), func(c *Customer, now time.Time) (Change, []MACRecord, error) {
		if err := fn(c, now); err != nil {
			return Change{}, nil, err
		}
		return Change{Kind: kind}, nil, nil
	})
}

// quiet reads skip_internal_api: the change is kept from the feed.
func quiet(r *request) bool { return r.flag("skip_internal_api") }

// existing reads customer_id and makes sure that there is such a customer.
func existing(e *Emulator, r *request) (int64, error) { return existingAs(e, r, "customer_id") }

func existingAs(e *Emulator, r *request, name string) (int64, error) {
	id, err := r.int(name)
	if err != nil {
		return 0, err
	}
	if e.customer(id) == nil {
		return 0, notFound("customer not found")
	}
	return id, nil
}

// addCustomer answers add with the Id of the new customer. From 3.21 on a
// billing and the id in it are obligatory unless is_potential is set.
func addCustomer(e *Emulator, r *request) (answer, error) {
	c := Customer{
		FullName: r.text("fio"), BillingUID: r.text("codeti"),
		Potential: r.flag("is_potential"), Corporate: r.flag("is_corporate"),
	}
	if !r.before("3.21") {
		if r.has("billing_customer_id") {
			c.BillingUID = r.text("billing_customer_id")
		}
		for _, p := range []string{"billing_id", "billing_customer_id"} {
			if !c.Potential && !r.has(p) {
				return answer{}, badRequest("parameter %s is missing", p)
			}
		}
	}
	if r.has("billing_id") {
		var err error
		if c.Billing, err = r.positive("billing_id"); err != nil {
			return answer{}, err
		}
	}
	c.NotInBilling = c.BillingUID == ""
	id, err := e.addCustomer(c, quiet(r))
	if err != nil {
		return answer{}, err
	}
	return answer{body: func(enc *encoder) { enc.intField("Id", id) }}, nil
}

// editCustomer answers edit, whose customer is called id. What is not given
// stays; what is given empty is emptied.
func editCustomer(e *Emulator, r *request) (answer, error) {
	return alter(e, r, "id", ChangeEdit, func(c *Customer, _ time.Time) error {
		w := &editor{r: r, c: c}
		w.texts()
		w.numbers()
		w.others()
		return w.err
	})
}

// editor applies the parameters of edit to a customer. The first parameter that
// cannot be read makes err, and no change at all.
type editor struct {
	r   *request
	c   *Customer
	err error
}

// each calls set for the parameters that were given and that the server knows.
func (w *editor) each(names []string, set func(i int, name string) error) {
	for i, name := range names {
		if _, given := w.r.params[name]; given && w.err == nil {
			w.err = set(i, name)
		}
	}
}

func (w *editor) texts() {
	c := w.c
	fields := []*string{&c.AccountNumber, &c.AgreementNumber, &c.Apartment, &c.Comment, &c.Login, &c.FullName}
	w.each([]string{"account_number", "agreement_number", "apartment_number", "comment", "login", "name"}, func(i int, name string) error {
		*fields[i] = w.r.text(name)
		return nil
	})
	w.each([]string{"email"}, func(_ int, name string) error {
		c.Emails = nil
		if s := w.r.text(name); s != "" {
			c.Emails = []string{s}
		}
		return nil
	})
	phones := []string{"phone0", "phone1", "phone2", "phone3", "phone4"}
	if w.r.before(afterSeed) {
		phones = phones[:2]
	}
	w.each(phones, func(i int, name string) error {
		for len(c.Phones) <= i {
			c.Phones = append(c.Phones, "")
		}
		c.Phones[i] = w.r.text(name)
		for n := len(c.Phones); n > 0 && c.Phones[n-1] == ""; n-- {
			c.Phones = c.Phones[:n-1]
		}
		return nil
	})
}

func (w *editor) numbers() {
	c := w.c
	entrance, floor := int64(c.Entrance), int64(c.Floor)
	fields := []*int64{&entrance, &floor, &c.House, &c.Manager, &c.Parent, &c.Group}
	names := []string{"entrance", "floor", "house_id", "manager_id", "parent_id", "group_id"}
	if w.r.before("3.16dev3") {
		names = names[:5]
	}
	w.each(names, func(i int, name string) error {
		*fields[i] = 0
		if !w.r.has(name) {
			return nil
		}
		n, err := w.r.int(name)
		if err == nil && (n < -1000 || n < 0 && name != "floor") {
			err = badRequest("parameter %s: below its range", name)
		}
		*fields[i] = n
		return err
	})
	c.Entrance, c.Floor = int(entrance), int(floor)
	flags := []*bool{&c.Corporate, &c.Potential}
	w.each([]string{"flag_corporate", "is_potential"}, func(i int, name string) error {
		if v := w.r.param(name); v != "0" && v != "1" && v != "" {
			return badRequest("parameter %s: want 1 or 0", name)
		}
		*flags[i] = w.r.flag(name)
		return nil
	})
}

func (w *editor) others() {
	c := w.c
	dates := []*time.Time{&c.AgreementDate, &c.Active, &c.ActiveInternet, &c.Connected}
	w.each([]string{"agreement_date", "date_activity", "date_activity_inet", "date_connect"}, func(i int, name string) error {
		if !w.r.has(name) {
			*dates[i] = time.Time{}
			return nil
		}
		t, _, err := w.r.time(name)
		*dates[i] = t
		return err
	})
	if w.r.before(afterSeed) {
		return
	}
	w.each([]string{"coordinates"}, func(_ int, name string) error {
		s := w.r.param(name)
		lat, lon, _ := strings.Cut(s, ",")
		if s != "" && (!degrees(lat, 90) || !degrees(lon, 180)) {
			return badRequest("parameter coordinates: want latitude and longitude with a comma between")
		}
		c.Coordinates = s
		return nil
	})
}

func degrees(s string, most float64) bool {
	f, err := strconv.ParseFloat(s, 64)
	return err == nil && f >= -most && f <= most
}

// text reads what a person typed; some clients send it with HTML entities.
func (r *request) text(name string) string {
	return html.UnescapeString(strings.ReplaceAll(r.param(name), "<br>", "\n"))
}

// positive reads an id.
func (r *request) positive(name string) (int64, error) {
	n, err := r.int(name)
	if err == nil && n <= 0 {
		err = badRequest("parameter %s: want a number above 0", r.wire(name))
	}
	return n, err
}

// time reads a date or a time in one of the forms that clients send (API page,
// section 1); dateOnly tells that there was no time of day.
func (r *request) time(name string) (t time.Time, dateOnly bool, err error) {
	s := r.param(name)
	if t, err = time.Parse(time.RFC3339, s); err == nil {
		return t, false, nil
	}
	for _, layout := range []string{time.DateOnly, time.DateTime, "2006-01-02T15:04:05", "2006.01.02", "2006.01.02 15:04:05"} {
		if t, err = time.ParseInLocation(layout, s, r.loc); err == nil {
			return t, len(layout) == len(time.DateOnly), nil
		}
	}
	return time.Time{}, false, badRequest("parameter %s: want a date like 2006-01-02 or 2006-01-02 15:04:05", r.wire(name))
}

// deleteCustomer answers delete, whose customer is called id.
func deleteCustomer(e *Emulator, r *request) (answer, error) {
	id, err := existingAs(e, r, "id")
	if err != nil {
		return answer{}, err
	}
	return answer{}, e.deleteCustomer(id, quiet(r))
}

// mergeCustomers answers merge: what src_id has goes to dst_id, and src_id is no
// more. Nothing is published of the details: dst_id keeps its own name,
// state, contract and tariff, and gets addresses, ports, contacts, marks, services,
// messages and the balance besides.
func mergeCustomers(e *Emulator, r *request) (answer, error) {
	dst, err := existingAs(e, r, "dst_id")
	if err != nil {
		return answer{}, err
	}
	src, err := existingAs(e, r, "src_id")
	if err != nil {
		return answer{}, err
	}
	if dst == src {
		return answer{}, badRequest("parameters dst_id and src_id are the same")
	}
	return answer{}, e.merge(dst, src, quiet(r))
}

// join adds what src has to c.
func (c *Customer) join(src *Customer) {
	c.Addresses = union(c.Addresses, src.Addresses)
	c.Links = union(c.Links, src.Links)
	c.Phones = union(c.Phones, slices.DeleteFunc(slices.Clone(src.Phones), func(s string) bool { return s == "" }))
	c.Emails = union(c.Emails, src.Emails)
	c.Marks = union(c.Marks, src.Marks)
	c.Services = append(c.Services, src.Services...)
	c.BalanceCents += src.BalanceCents
	c.Movements = append(c.Movements, src.Movements...)
	slices.SortStableFunc(c.Movements, func(a, b Movement) int { return a.At.Compare(b.At) })
	c.Movements = newest(c.Movements)
	c.Messages = append(c.Messages, src.Messages...)
	slices.SortStableFunc(c.Messages, func(a, b Message) int { return a.At.Compare(b.At) })
	c.Messages = newest(c.Messages)
	if src.Active.After(c.Active) {
		c.Active = src.Active
	}
}

func union[T comparable](a, b []T) []T {
	for _, v := range b {
		if !slices.Contains(a, v) {
			a = append(a, v)
		}
	}
	return a
}

// newest returns the last maxHistory of a list.
func newest[T any](list []T) []T { return list[max(0, len(list)-maxHistory):] }

// toFormer and toNormal answer to_ex and to_normal. They change the flag and
// leave state and addresses alone, since nothing is published of more.
func toFormer(e *Emulator, r *request) (answer, error) { return setFormer(e, r, true) }

func toNormal(e *Emulator, r *request) (answer, error) { return setFormer(e, r, false) }

func setFormer(e *Emulator, r *request, former bool) (answer, error) {
	return alter(e, r, "customer_id", ChangeState, func(c *Customer, _ time.Time) error {
		if c.Former == former {
			return errNothing
		}
		c.Former = former
		return nil
	})
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

// markAdd and markDelete answer mark_add and mark_delete. The ERP's list of
// marks is in a section that is not emulated, so any number is one.
func markAdd(e *Emulator, r *request) (answer, error) {
	mark, err := r.positive("mark_id")
	if err != nil {
		return answer{}, err
	}
	return alter(e, r, "customer_id", ChangeMark, func(c *Customer, _ time.Time) error {
		if slices.Contains(c.Marks, mark) {
			return errNothing
		}
		c.Marks = append(c.Marks, mark)
		return nil
	})
}

func markDelete(e *Emulator, r *request) (answer, error) {
	mark, err := r.positive("mark_id")
	if err != nil {
		return answer{}, err
	}
	return alter(e, r, "customer_id", ChangeMark, func(c *Customer, _ time.Time) error {
		i := slices.Index(c.Marks, mark)
		if i < 0 {
			return notFound("mark not found")
		}
		c.Marks = slices.Delete(c.Marks, i, i+1)
		return nil
	})
}
