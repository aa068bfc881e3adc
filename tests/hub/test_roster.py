"""Test the *Roster* page: lists of names, first passwords, and names added on *Admin*."""

from __future__ import annotations

import asyncio
import csv
import html
import io
import re
import time
from types import SimpleNamespace
from urllib.parse import unquote

import bcrypt
import pytest
import requests
from hubs import PASSWORD, ClassHub, post, run_in, wait_until
from jupyterhub import orm
from jupyterhub.utils import utcnow
from nativeauthenticator.orm import UserInfo

from tfcourse.hub import state
from tfcourse.hub.accounts import native, passwords, roster

CODE = "Tensors 2026"

# --- Reading a list


def people(text: str) -> list[tuple[str, str, str]]:
    """Return the name, group and user name in each line; no line may have a problem."""
    found = roster.parse(text)
    assert not [each.problem for each in found if each.problem]
    return [(each.name, each.group, each.user_name) for each in found]


def problems(text: str) -> list[str]:
    return [each.problem for each in roster.parse(text)]


@pytest.mark.parametrize(
    ("name", "user_name"),
    [
        ("ada", "ada"),
        ("a_b.c-", "a_b.c-"),
        ("Ada Lovelace", "ada.lovelace"),
        ("ADA", "ada"),
        ("Änne Müller", "anne.muller"),
        ("A\u0308nne Mu\u0308ller", "anne.muller"),  # as macOS writes it
        ("Anna-Lena  Groß", "anna-lena.gross"),
        ("Müller, Änne", "muller.anne"),
        ("Øystein Ærø", "oystein.aero"),
        ("Łukasz Żółć", "lukasz.zolc"),
        ("Đặng Hà", "dang.ha"),
        ("İpek I\u015f\u0131k", "ipek.isik"),
        ("Þór Ðorðarson", "thor.dordarson"),
        ("Seán O'Brien", "sean.obrien"),
        ("D\u2019Angelo", "dangelo"),
        ("Keao Hawai\u02bbi", "keao.hawaii"),
        ("Иван Петров", "ivan.petrov"),
        ("Γιώργος", "giorgos"),
        ("J. R. Smith", "j.r.smith"),
        ("-.Bob.-", "bob"),
        ("<b>Eve</b>", "b.eve.b"),
        ("=1+1", "1.1"),
        ("山田 太郎", ""),
        ("山田 Taro", ""),
        ("محمد", ""),
        ("🙂", ""),
        ("!?", ""),
    ],
)
def test_a_user_name_is_made_from_a_name(name, user_name):
    assert roster.parse(name.join('""'))[0].user_name == user_name


@pytest.mark.parametrize(
    "text",
    [
        "Änne Müller,A\nBob,B",
        "Änne Müller;A\nBob;B\n",
        "Änne Müller\tA\nBob\tB\n",
        "Änne Müller,A\r\nBob,B\r\n",
        "Änne Müller,A\rBob,B\r",
        "\n\n Änne \u00a0 Müller , A\n,,\n \nBob,B\n\n",
        '"Änne Müller", "A"\nBob,B',
        "name,group\nÄnne Müller,A\nBob,B",
        "Name;Group;User name\nÄnne Müller;A;\nBob;B;bob\n",
        "e-mail,Group,NAME\nx@y.example,A,Änne Müller\n,B,Bob",
        "username,name,group\n,Änne Müller,A\nBOB,,B".replace("BOB,,", "bob,Bob,"),
        "\u200bÄnne Mül\u00adler,A\n\u202eBob,B",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_lists_are_read_as_spreadsheets_write_them(text, encoding):
    content = text.encode(encoding, "ignore")
    assert people(roster.decoded(content)) == [
        ("Änne Müller", "A", "anne.muller"),
        ("Bob", "B", "bob"),
    ]


def test_names_with_commas_and_missing_columns():
    assert people('"Müller, Änne"\nBob,,BOBBY\nCarl,C') == [
        ("Müller, Änne", "", "muller.anne"),
        ("Bob", "", "bobby"),
        ("Carl", "C", "carl"),
    ]
    assert people("Müller, Änne;A\n") == [("Müller, Änne", "A", "muller.anne")]
    assert people("user name\nada") == [("ada", "", "ada")]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("山田 太郎", "The hub cannot derive a user name from this name. Write one in the third"),
        ("Karl Theodor Maria Nikolaus Johann", "A user name has at most 32 characters"),
        ("Ada,,a/b", "A user name has at most 32 characters: lowercase letters"),
        ("Ada,,../x", "A user name has at most 32 characters: lowercase letters"),
        ("Ada,,Ada Lovelace", "A user name has at most 32 characters: lowercase letters"),
        (",A", "This line has no name."),
        ("x" * 101 + ",,x", "A name has at most 100 characters."),
        ("Ada," + "x" * 41, "A group's name has at most 40 characters."),
        ("Ada,A\x07", "This line has characters that cannot be printed."),
        ("Ada,instructors", "A roster cannot add instructors. Only an administrator can"),
        ("Ada,Instructors", "A roster cannot add instructors."),
        ("Ada,A,ada,x", "This line has more than three columns."),
        ('"Ada\nBob",A', "This entry continues on the next line. A quotation mark may be missing."),
        ('"Ada,A\nBob', "This entry continues on the next line. A quotation mark may be missing."),
    ],
)
def test_an_invalid_line_gets_a_message(line, sentence):
    found = problems(f"Carl\n{line}")
    assert found[0] == ""
    assert found[1].startswith(sentence)


@pytest.mark.parametrize("group", ["x" * 40, "Gruppe Ä", "<b>", "=1+1", "7b"])
def test_a_group_can_have_any_printable_name(group):
    assert people(f"Ada,{group}") == [("Ada", group, "ada")]


def test_duplicates_get_a_message_that_names_all_their_lines():
    found = problems("Änne Müller\nBob\nAnne Muller\nbob\nCarl\nBOB\n")
    same = "give the same user name. Delete duplicates, or write different user names in the third"
    assert [sentence.partition(" Delete")[0] for sentence in found] == [
        f"Lines {lines} give the same user name." if lines else ""
        for lines in ("1 and 3", "2, 4 and 6", "1 and 3", "2, 4 and 6", "", "2, 4 and 6")
    ]
    assert same in found[0]
    assert people("Anne Müller\nAnne Müller,,anne2")[1][2] == "anne2"


def test_lines_are_counted_as_an_editor_counts_them():
    found = roster.parse('name\n\nAda\n"Bob\nCarl"\nDora\n')
    assert [(each.line, each.name) for each in found] == [(3, "Ada"), (4, "Bob Carl"), (6, "Dora")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The list is empty."),
        (" \n,,\n", "The list is empty."),
        ("name,group\n", "The list is empty."),
        ("\n".join(f"a{number}" for number in range(501)), "The list has 501 lines. Split it"),
        ("PK\x03\x04\x14\0\x06\0", "This file is not a CSV file. In your spreadsheet, save the"),
        ('"' + "x" * 140_000, "A quotation mark is missing on line 1 or later."),
    ],
)
def test_an_unreadable_list_is_refused_with_a_message(text, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        roster.parse(text)


def test_no_spreadsheet_evaluates_a_name():
    names = ["=1+1", "+1", "-1", "@x", "Änne Müller", "Müller, Änne"]
    slips = [roster.Person(1, name, name, "x", password="p") for name in names]
    link = roster.as_csv(slips, "https://hub.example/")
    kind, _, text = link.partition(",")
    assert kind == "data:text/csv;charset=utf-8"
    rows = list(csv.reader(io.StringIO(unquote(text).removeprefix("\ufeff"))))
    assert rows[0] == ["name", "group", "user name", "first password", "address"]
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'+1", "'-1", "'@x", *names[4:]]
    assert [row[1] for row in rows[1:]] == [row[0] for row in rows[1:]]
    assert rows[1][2:] == ["x", "p", "https://hub.example/"]


# --- First passwords and reserved names


def test_a_wrong_first_password_takes_as_long_as_any_wrong_password(monkeypatch):
    """Otherwise, strangers could find out which names have first passwords."""
    (stored,) = passwords.quickly_hashed(["abcd-efgh-jkmn-pqrs"])
    slow = passwords.hashed("x")[:7]  # the algorithm and the number of rounds
    assert stored[:7] != slow
    checked = []
    check = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda *a: checked.append(a[1][:7]) or check(*a))
    assert passwords.matches(b"abcd-efgh-jkmn-pqrs", stored)
    assert checked == [stored[:7]]
    for wrong in (stored, passwords.NO_PASSWORD):
        checked.clear()
        assert not passwords.matches(b"wrong", wrong)
        assert checked.count(slow) == 1


@pytest.fixture
def authenticator() -> native.CourseAuthenticator:
    """Return an authenticator with an in-memory database."""
    authenticator = native.CourseAuthenticator(db=orm.new_session_factory("sqlite://")())
    authenticator.class_code = CODE
    authenticator.username_pattern = state.NAMES
    return authenticator


def add(authenticator: native.CourseAuthenticator, name: str, **more: object) -> orm.User:
    """Add a user, as an administrator does on *Admin*."""
    user = orm.User(name=name, **more)
    authenticator.db.add(user)
    authenticator.db.commit()
    authenticator.add_user(user)
    return user


def test_an_added_name_is_reserved_and_strangers_cannot_sign_up_with_it(authenticator):
    def sign_up(name: str) -> str:
        return asyncio.run(authenticator.sign_up(name, PASSWORD, PASSWORD, CODE, "x"))

    ada, boss = add(authenticator, "ada"), add(authenticator, "boss", admin=True)
    authenticator.add_user(ada)  # JupyterHub calls this method for all users at each start
    (account,) = authenticator.db.query(UserInfo).filter_by(username="ada")
    assert (account.is_authorized, account.password) == (True, passwords.NO_PASSWORD)
    in_use = "This user name is already in use. Choose another one."
    assert sign_up("ada") == native.RESERVED
    assert sign_up(boss.name) == in_use
    (account.password,) = passwords.quickly_hashed(["abcd-efgh-jkmn-pqrs"])
    assert sign_up("ada") == native.RESERVED  # until its owner has logged in
    ada.last_activity = utcnow(with_tz=False)
    assert sign_up("ada") == in_use
    assert sign_up("bob") == ""
    assert sign_up("bob") == in_use


def test_users_who_logged_in_through_another_service_need_approval(authenticator):
    ada = add(authenticator, "ada", last_activity=utcnow(with_tz=False))
    assert not authenticator.get_user("ada").is_authorized
    assert not asyncio.run(authenticator.refresh_user(ada))
    authenticator.get_user("ada").is_authorized = True
    assert roster.unused(authenticator.db, all_of_them=True) == []


def test_only_administrators_can_create_passwords_for_accounts_with_rights(authenticator):
    db = authenticator.db
    db.add_all(orm.Role(name=name) for name in ("user", "grader"))
    user, grader = db.query(orm.Role).order_by(orm.Role.id)
    instructors, graders = orm.Group(name="instructors"), orm.Group(name="graders")
    db.add(graders)
    graders.roles = [grader]
    add(authenticator, "learner", roles=[user], groups=[orm.Group(name="Group A")])
    add(authenticator, "administrator", admin=True)
    add(authenticator, "instructor", groups=[instructors])
    add(authenticator, "grader", roles=[user, grader])
    add(authenticator, "member", groups=[graders])
    for all_of_them, names in [
        (False, ["learner"]),
        (True, ["administrator", "grader", "instructor", "learner", "member"]),
    ]:
        assert [found.name for _, found in roster.unused(db, all_of_them)] == names


@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_roster_adds_nobody_to_a_group_with_rights(authenticator, all_of_them):
    db = authenticator.db
    db.add(orm.Role(name="grader", groups=[orm.Group(name="graders")]))
    db.add(orm.Group(name="Group A"))
    people = roster.parse("Ada,graders\nBob,Group A\nCarl,Graders")
    roster.compare(people, db, all_of_them)
    assert [each.is_new for each in people] == [False, True, True]
    assert people[0].problem.startswith("This group has more rights than learners have.")


def test_a_password_that_its_owner_or_an_administrator_chose_is_never_replaced(authenticator):
    add(authenticator, "ada")
    asyncio.run(authenticator.set_password("ada", PASSWORD))
    assert roster.unused(authenticator.db, all_of_them=True) == []


def test_a_blocked_account_gets_no_password(authenticator):
    add(authenticator, "ada")
    authenticator.get_user("ada").is_authorized = False
    assert roster.unused(authenticator.db, all_of_them=True) == []
    people = roster.parse("Ada")
    roster.compare(people, authenticator.db, all_of_them=True)
    assert not people[0].gets_password


@pytest.mark.parametrize(("activity", "is_kept"), [(None, False), (utcnow(with_tz=False), True)])
def test_deleting_an_added_name_frees_it_unless_it_was_used(authenticator, activity, is_kept):
    add(authenticator, "ada", last_activity=activity)
    authenticator.delete_user(SimpleNamespace(name="ada"))
    assert authenticator.user_exists("ada") == is_kept


# --- The page


@pytest.fixture(scope="module")
def hub(new_hub) -> ClassHub:
    """Return a running hub with a class code."""
    hub = new_hub()
    hub.up(COURSE_CLASS_CODE=CODE)
    return hub


@pytest.fixture(scope="module")
def admin(hub) -> requests.Session:
    return hub.login("instructor", hub.admin_password).session


@pytest.fixture(scope="module")
def colleague(hub, admin) -> requests.Session:
    """Return the session of an instructor who is not an administrator."""
    hub.sign_up("colleague", code=CODE)
    session = hub.login("colleague").session
    group = f"{hub.url}/hub/api/groups/instructors/users"
    post(admin, group, json={"users": ["colleague"]}).raise_for_status()
    return session


class Sheet:
    """The response to a form on the *Roster* page."""

    def __init__(self, session: requests.Session, hub: ClassHub, path: str = "", **content):
        page = post(session, f"{hub.url}/hub/roster{path}", **content)
        assert page.status_code == 200, page.text
        page.encoding = "utf-8"
        self.source = re.search("<main.*</main>", page.text, re.S)[0]
        self.headers = page.headers
        without_list = re.sub("<textarea.*?</textarea>", "", self.source, flags=re.S)
        text = html.unescape(re.sub("<[^>]*>", " ", without_list))
        self.text = " ".join(text.split())
        pair = "User name</dt><dd><code>(.*?)</code>.*?Password</dt><dd><code>(.*?)</code>"
        self.passwords = dict(re.findall(pair, self.source, re.S))


def added(hub: ClassHub, session: requests.Session, *names: str, **more: object) -> None:
    """Add users as the *Admin* page does."""
    response = post(session, f"{hub.url}/hub/api/users", json={"usernames": names, **more})
    assert response.status_code == 201, response.text


def groups_of(hub: ClassHub, admin: requests.Session, name: str) -> list[str]:
    headers = {"Referer": f"{hub.url}/hub/admin"}
    model = admin.get(f"{hub.url}/hub/api/users/{name}", headers=headers, timeout=30).json()
    return model["groups"]


def unused_names(hub: ClassHub, session: requests.Session) -> list[str]:
    page = session.get(f"{hub.url}/hub/roster", timeout=30).text
    return re.findall(r'<input[^>]* name="name" value="([^"]*)"', page)


def test_a_learner_on_a_list_can_log_in_immediately(hub, admin, colleague):
    text = "Name;Group\r\nÄnne Müller;Gruppe Ä\r\nBob O'Brien;\r\n"
    file = {"file": ("class.csv", text.encode("cp1252"), "text/csv")}
    preview = Sheet(colleague, hub, data={"roster": "ignored"}, files=file)
    assert "2 of 2 people will get a first password. Nothing has been created" in preview.text
    assert "2 Änne Müller User name: anne.muller Group: Gruppe Ä The account will" in preview.text
    assert "Invalid username" in hub.login("anne.muller").text
    decoded = html.unescape(re.search(r'name="roster" value="([^"]*)"', preview.source)[1])

    sheet = Sheet(colleague, hub, "/create", data={"roster": decoded})
    assert list(sheet.passwords) == ["anne.muller", "bob.obrien"]
    assert f"Address {hub.url}/ User name anne.muller Password" in sheet.text
    assert sheet.headers["Cache-Control"] == "no-store"
    for password in sheet.passwords.values():
        assert re.fullmatch(rf"([{state.ALPHABET}]{{4}}-){{3}}[{state.ALPHABET}]{{4}}", password)
        assert password in unquote(re.search('href="(data:[^"]*)"', sheet.source)[1])
    first = sheet.passwords["anne.muller"]
    learner = hub.login("anne.muller", first)
    assert learner.url == f"{hub.url}/hub/spawn"
    assert groups_of(hub, admin, "anne.muller") == ["Gruppe Ä"]
    assert 'id="bob.obrien"' in colleague.get(f"{hub.url}/hub/authorize", timeout=30).text

    form = {"old_password": first, "new_password": PASSWORD, "new_password_confirmation": PASSWORD}
    changed = post(learner.session, f"{hub.url}/hub/change-password", data=form)
    assert "The password has been changed." in changed.text
    assert hub.login("anne.muller").url == f"{hub.url}/hub/spawn"
    logs = hub.container("hub").logs() + hub.container("proxy").logs()
    assert first.encode() not in logs


def test_first_passwords_can_be_replaced_until_an_account_is_used(hub, colleague):
    old = Sheet(colleague, hub, "/create", data={"roster": "Carol\nDave"}).passwords
    assert {"carol", "dave"} <= set(unused_names(hub, colleague))
    assert "Ask your instructor for its first password." in hub.sign_up("carol", code=CODE)
    hub.login("dave", old["dave"])
    assert "dave" not in unused_names(hub, colleague)
    new = Sheet(colleague, hub, "/passwords", data={"name": ["carol", "dave"]}).passwords
    assert list(new) == ["carol"]
    assert "Invalid username" in hub.login("carol", old["carol"]).text
    assert hub.login("carol", new["carol"]).url == f"{hub.url}/hub/spawn"
    again = Sheet(colleague, hub, "/passwords", data={"name": ["carol", "dave"]})
    assert "Choose at least one account that nobody has used yet." in again.text
    assert not again.passwords


def test_users_added_on_admin_get_first_passwords(hub, admin, colleague):
    added(hub, admin, "erin", "frank", "gina")
    assert "This user name is reserved. Ask your" in hub.sign_up("erin", code=CODE)
    assert "Invalid username" in hub.login("erin", "").text
    page = colleague.get(f"{hub.url}/hub/roster", timeout=30).text
    assert page.count("(no password yet)") == 3
    made = Sheet(colleague, hub, "/passwords", data={"name": ["erin"]}).passwords
    assert hub.login("erin", made["erin"]).url == f"{hub.url}/hub/spawn"
    made = Sheet(colleague, hub, "/create", data={"roster": "Frank,Group F"}).passwords
    assert hub.login("frank", made["frank"]).url == f"{hub.url}/hub/spawn"
    assert groups_of(hub, admin, "frank") == []

    # Simulate a user whom JupyterHub knows but who has no account, as before this version.
    delete = "import sqlite3; db = sqlite3.connect('/srv/state/hub/jupyterhub.sqlite'); "
    delete += "db.execute(\"delete from users_info where username = 'gina'\"); db.commit()"
    run_in(hub.container("hub"), "python3", "-c", delete)
    assert "already in use" in hub.sign_up("gina", code=CODE)
    hub.container("hub").restart()
    wait_until(hub.answers, "the hub is back")
    assert "This user name is reserved." in hub.sign_up("gina", code=CODE)
    made = Sheet(colleague, hub, "/passwords", data={"name": "gina"}).passwords
    assert hub.login("gina", made["gina"]).url == f"{hub.url}/hub/spawn"


def test_names_that_are_invalid_or_added_twice_are_refused_on_admin(hub, admin):
    added(hub, admin, "hans")
    for name, status in [("hans", 409), ("Hans", 409), ("a b", 400), ("<b>", 400)]:
        url = f"{hub.url}/hub/api/users"
        assert post(admin, url, json={"usernames": [name]}).status_code == status


def test_nothing_is_created_while_a_line_has_a_problem(hub, colleague):
    text = "Ida\nJürgen\nJurgen\n山田"
    for path in ("", "/create"):
        page = Sheet(colleague, hub, path, data={"roster": text})
        assert "3 of 4 lines have problems. No account has been created." in page.text
        assert "Lines 2 and 3 give the same user name." in page.text
        assert re.findall(r"<td>(\d)</td>", page.source) == ["2", "3", "4", "1"]  # problems first
        assert text in html.unescape(page.source)  # so that the instructor can correct it
        assert "Create the accounts" not in page.text
    assert "ida" not in unused_names(hub, colleague)
    for path in ("", "/create"):
        page = Sheet(colleague, hub, path, data={"roster": " "})
        assert "The list is empty." in page.text


def test_accounts_that_exist_stay_as_they_are(hub, admin, colleague):
    assert "once your instructor" in hub.sign_up("kim")  # awaits approval
    hub.sign_up("lena", code=CODE)
    text = "Kim,Group K\nLena,Group K\nInstructor,Group K\nMax,Group K\nColleague"
    page = Sheet(colleague, hub, data={"roster": text})
    assert "1 of 5 people will get a first password." in page.text
    assert "kim Group: Group K The account exists and awaits approval on the “Who may" in page.text
    for name in ("lena Group: Group K", "instructor Group: Group K", "colleague"):
        assert f"{name} The account exists. Nothing will change." in page.text
    assert list(Sheet(colleague, hub, "/create", data={"roster": text}).passwords) == ["max"]
    names = ["kim", "lena", "instructor", "colleague", "nobody"]
    assert not Sheet(admin, hub, "/passwords", data={"name": names}).passwords
    assert "Your instructor has to let" in hub.login("kim").text
    for name in ("lena", "colleague"):
        assert hub.login(name).url == f"{hub.url}/hub/spawn"
    assert groups_of(hub, admin, "lena") == groups_of(hub, admin, "instructor") == []
    again = Sheet(colleague, hub, "/create", data={"roster": "Max"})
    assert "Everyone on this list already has an account." in again.text


def test_an_instructor_can_neither_grant_nor_gain_rights(hub, admin, colleague):
    added(hub, admin, "chief", admin=True)
    added(hub, admin, "tutor")
    post(admin, f"{hub.url}/hub/api/groups/instructors/users", json={"users": ["tutor"]})
    for session in (colleague, admin):
        for group in ("instructors", "INSTRUCTORS"):
            page = Sheet(session, hub, "/create", data={"roster": f"Mallory,{group}"})
            assert "A roster cannot add instructors." in page.text
    text = "Chief\nTutor,Group T"
    assert "Everyone on this list already" in Sheet(colleague, hub, data={"roster": text}).text
    assert not {"chief", "tutor"} & set(unused_names(hub, colleague))
    form = {"name": ["chief", "tutor"]}
    assert not Sheet(colleague, hub, "/passwords", data=form).passwords
    made = Sheet(admin, hub, "/passwords", data=form).passwords
    assert hub.login("chief", made["chief"]).url == f"{hub.url}/hub/spawn"


def test_names_with_html_are_shown_as_text(hub, colleague):
    bad, group = "<script>alert(1)</script>", "<b>'\" onload=x"
    quoted = group.replace('"', '""')
    form = {"roster": f'{bad};"{quoted}";nina'}
    for path in ("", "/create"):
        page = Sheet(colleague, hub, path, data=form)
        assert bad in page.text
        assert group in page.text
        assert bad not in page.source
        assert group not in page.source
    assert list(page.passwords) == ["nina"]
    assert 'href="data:text/csv' in page.source
    refused = Sheet(colleague, hub, data={"roster": f"{bad},instructors"})
    assert bad not in refused.source
    remade = Sheet(colleague, hub, "/passwords", data={"name": "nina"})
    assert f"Group {group}" in remade.text
    assert group not in remade.source


def test_the_preview_warns_of_files_of_an_earlier_account(hub, colleague):
    (hub.homes / "homes" / "otto").mkdir()
    page = Sheet(colleague, hub, data={"roster": "Otto\nPaul"})
    assert "otto The account will be created. It will get the files that are already" in page.text
    assert page.text.count("It will get the files") == 1


def test_only_instructors_can_use_the_roster(hub):
    hub.sign_up("quinn", code=CODE)
    for session in (hub.session(), hub.login("quinn").session):
        assert session.get(f"{hub.url}/hub/roster", timeout=30).status_code in (200, 403)
        assert "/hub/roster" not in session.get(f"{hub.url}/hub/home", timeout=30).text
        for path in ("", "/create", "/passwords"):
            form = {"roster": "Rosa", "name": "nina"}
            page = post(session, f"{hub.url}/hub/roster{path}", data=form)
            assert page.status_code == 403
            assert "Rosa" not in page.text


def test_a_class_of_300_gets_accounts_within_seconds(hub, colleague):
    text = "\n".join(f"Learner {number},Group {number % 10}" for number in range(300))
    began = time.monotonic()
    sheet = Sheet(colleague, hub, "/create", data={"roster": text})
    assert len(set(sheet.passwords.values())) == 300
    assert time.monotonic() - began < 10
    last = hub.login("learner.299", sheet.passwords["learner.299"])
    assert last.url == f"{hub.url}/hub/spawn"
