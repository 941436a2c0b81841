package emulator

import (
	"slices"
	"strings"
)

// bare answers without envelope, as cat=module does.
func bare(fn func(*encoder)) answer { return answer{bare: fn} }

// getUserList answers module get_user_list: all customers but former ones, and
// potential ones only with is_with_potential=1 (API page, section 5.3). Of the other
// options customer_id, billing_id and is_id_billing_user_id are honoured;
// is_load_commutation is not, its answer is published nowhere.
func getUserList(e *Emulator, r *request) (answer, error) {
	var only, billing int64
	var err error
	if r.has("customer_id") {
		if only, err = r.int("customer_id"); err != nil {
			return answer{}, err
		}
	}
	if r.has("billing_id") {
		if billing, err = r.int("billing_id"); err != nil {
			return answer{}, err
		}
	}
	listed := func(c *Customer) bool {
		return !c.Former && (!c.Potential || r.flag("is_with_potential")) &&
			(only == 0 || c.ID == only) && (billing == 0 || max(c.Billing, 1) == billing)
	}
	all := e.bulk(r)
	return bare(func(enc *encoder) {
		enc.keyed(true, func() {
			for _, c := range all {
				if !listed(c) {
					continue
				}
				if r.flag("is_id_billing_user_id") {
					enc.key(c.BillingUID)
				} else {
					enc.id(c.ID)
				}
				enc.customer(r, c)
			}
		})
	}), nil
}

// getUserStateList answers module get_user_state_list with the ERP's own three states.
func getUserStateList(*Emulator, *request) (answer, error) {
	functional := [...]string{StateStop: "disable", StatePause: "pause", StateActive: "work"}
	names := [...]string{StateStop: "Стоп", StatePause: "Пауза", StateActive: "Активен"}
	return bare(func(enc *encoder) {
		enc.keyed(true, func() {
			for s := StateStop; s <= StateActive; s++ {
				enc.id(int64(s))
				enc.object(func() {
					enc.intField("id", int64(s))
					enc.textField("name", names[s])
					enc.strField("functional", functional[s])
				})
			}
		})
	}), nil
}

// getSystemInfo answers system get_system_info; the version is that of the profile.
func getSystemInfo(_ *Emulator, r *request) (answer, error) {
	php := "8.1.27"
	switch r.profile {
	case ProfileLegacy, Profile316:
		php = "7.2.34"
	case ProfileV321:
		php = "8.3.6"
	}
	return data(func(enc *encoder) {
		enc.object(func() {
			enc.strField("erp_version", r.version.String())
			enc.intField("date_time_unix", r.now.Unix())
			enc.strField("date_time_string", r.date(r.now))
			enc.strField("os", "Linux")
			enc.strField("php_version", php)
		})
	}), nil
}

// The three probes of the universal interface. Their members are those of
// billings that serve the same interface; of the ERP itself none are published.

func getSystemInformation(_ *Emulator, r *request) (answer, error) {
	return bare(func(enc *encoder) {
		enc.object(func() {
			enc.strField("date", r.date(r.now))
			enc.strField("os", "Linux")
			enc.key("billing")
			enc.object(func() {
				enc.strField("name", "usher emulator")
				enc.strField("version", r.version.String())
			})
		})
	}), nil
}

func getAPIInformation(*Emulator, *request) (answer, error) {
	return bare(func(enc *encoder) {
		enc.object(func() {
			enc.strField("version", "1.1")
			enc.strField("date", "2015-10-19")
		})
	}), nil
}

func getSupportedMethods(e *Emulator, r *request) (answer, error) {
	return bare(func(enc *encoder) {
		enc.keyed(false, func() {
			for _, name := range sortedKeys(e.actions) {
				act := e.actions[name]
				if act.cat == "module" && r.version.Has(act.since, act.until) && !slices.Contains(r.quirks.MissingActions, name) {
					enc.key(act.action)
					enc.object(func() { enc.strField("comment", strings.ReplaceAll(act.action, "_", " ")) })
				}
			}
		})
	}), nil
}
