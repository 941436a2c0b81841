package portal

// Languages lists the languages that texts are shipped in.
func Languages() []string { return []string{"en", "uk", "ru"} }

// Texts are the words of the page in one language and for one state.
type Texts struct {
	Title    string // what is the matter
	Lead     string // why, and what to do
	Pay      string // on the button
	Back     string // that the page notices by itself
	Customer string // label of the customer number
	Address  string // label of the address
	Contact  string // label of the contact
	Secure   string // why other pages do not open
}

// textsFor returns the words; English where a language is not shipped.
func textsFor(lang string, s State) Texts {
	switch lang {
	case "uk":
		return ukrainian(s)
	case "ru":
		return russian(s)
	default:
		return english(s)
	}
}

func english(s State) Texts {
	t := Texts{
		Pay: "Pay now", Back: "This page notices by itself when access is back.",
		Customer: "Customer number", Address: "Your address", Contact: "Contact",
		Secure: "Until then most sites do not open; pages that begin with https:// cannot show this notice.",
	}
	switch s {
	case StatePaused:
		t.Title = "Internet access is paused"
		t.Lead = "Your service is paused, most often because the balance has run out. Pay, and access comes back by itself within seconds."
	case StateStopped:
		t.Title = "Internet access is switched off"
		t.Lead = "Service under your contract has been stopped. Please contact us to have it switched on again."
	case StateGuest:
		t.Title = "This connection is not registered"
		t.Lead = "We do not know your device yet. Contact us to sign a contract or to register it."
	case StateActive:
		t.Title = "You are online"
		t.Lead = "Internet access works. You can go on to any site now."
		t.Back, t.Secure = "", ""
	default:
		t.Title = "Internet access is limited"
		t.Lead = "No contract is known for this address. Please contact us."
	}
	return t
}

func ukrainian(s State) Texts {
	t := Texts{
		Pay: "Сплатити", Back: "Сторінка сама помітить, коли доступ відновиться.",
		Customer: "Номер абонента", Address: "Ваша адреса", Contact: "Контакти",
		Secure: "До того часу більшість сайтів не відкривається; сторінки, що починаються з https://, не можуть показати це повідомлення.",
	}
	switch s {
	case StatePaused:
		t.Title = "Доступ до інтернету призупинено"
		t.Lead = "Послугу призупинено, найчастіше через брак коштів на рахунку. Сплатіть — і доступ відновиться сам за кілька секунд."
	case StateStopped:
		t.Title = "Доступ до інтернету вимкнено"
		t.Lead = "Надання послуг за вашим договором зупинено. Зверніться до нас, щоб увімкнути його знову."
	case StateGuest:
		t.Title = "Це підключення не зареєстровано"
		t.Lead = "Ми ще не знаємо вашого пристрою. Зверніться до нас, щоб укласти договір або зареєструвати пристрій."
	case StateActive:
		t.Title = "Ви онлайн"
		t.Lead = "Доступ до інтернету працює. Можете відкривати будь-які сайти."
		t.Back, t.Secure = "", ""
	default:
		t.Title = "Доступ до інтернету обмежено"
		t.Lead = "Для цієї адреси немає договору. Будь ласка, зверніться до нас."
	}
	return t
}

func russian(s State) Texts {
	t := Texts{
		Pay: "Оплатить", Back: "Страница сама заметит, когда доступ появится.",
		Customer: "Номер абонента", Address: "Ваш адрес", Contact: "Контакты",
		Secure: "До этого большинство сайтов не открывается; страницы, которые начинаются с https://, не могут показать это сообщение.",
	}
	switch s {
	case StatePaused:
		t.Title = "Доступ в интернет приостановлен"
		t.Lead = "Услуга приостановлена, чаще всего из-за нехватки средств на счёте. Оплатите — и доступ появится сам за несколько секунд."
	case StateStopped:
		t.Title = "Доступ в интернет отключён"
		t.Lead = "Оказание услуг по вашему договору прекращено. Обратитесь к нам, чтобы включить его снова."
	case StateGuest:
		t.Title = "Это подключение не зарегистрировано"
		t.Lead = "Мы ещё не знаем вашего устройства. Обратитесь к нам, чтобы заключить договор или зарегистрировать устройство."
	case StateActive:
		t.Title = "Вы в сети"
		t.Lead = "Доступ в интернет работает. Можете открывать любые сайты."
		t.Back, t.Secure = "", ""
	default:
		t.Title = "Доступ в интернет ограничен"
		t.Lead = "Для этого адреса нет договора. Пожалуйста, обратитесь к нам."
	}
	return t
}
