"""The *Roster* page, where instructors create accounts for a class from a list of names.

An instructor pastes or uploads a list, and previews what will happen for each line. The hub then
creates the accounts, and shows their first passwords on a page to print and hand out. The hub
stores user names, groups and the hashes of passwords, but not people's names.
"""

from __future__ import annotations

import asyncio
import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from jupyterhub import orm
from jupyterhub.handlers import BaseHandler
from jupyterhub.metrics import TOTAL_USERS
from jupyterhub.utils import get_browser_protocol
from nativeauthenticator.orm import UserInfo
from sqlalchemy.orm import Session
from text_unidecode import unidecode

from tfcourse import spreadsheet
from tfcourse.hub import pools, state
from tfcourse.hub.accounts import passwords
from tfcourse.hub.classroom.instructors import GROUP, needs_instructor

MOST = 500  # people in one list
LONGEST_NAME = 100  # characters
LONGEST_GROUP = 40  # characters
LARGEST_FILE = 200_000  # bytes; a form has at most 256 KB (bounds.py)
COLUMNS = ("name", "group", "user name")

# The scripts whose letters have a usual spelling in ASCII. In other scripts, the spelling depends
# on the language: the same two characters can be a Japanese name or a Chinese one.
SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "MODIFIER")

# --- Read a list


@dataclass
class Person:
    """A line of a list."""

    line: int
    name: str
    group: str
    user_name: str
    problem: str = ""  # a message if the line cannot be used
    outcome: str = ""  # a message about what will happen
    is_new: bool = False  # an account will be created
    gets_password: bool = False  # a first password will be created
    password: str = ""  # the first password, once it has been created


def decoded(content: bytes) -> str:
    """Return the text of a CSV file in any encoding that spreadsheets commonly use."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")  # Excel's default on Windows


def parse(text: str) -> list[Person]:
    """Return the people on a list, with a message for each line that has a problem.

    Each line has a name, which a group and a user name can follow. If the first line has headings,
    the columns can be in any order, and unknown columns are ignored.

    Raises
    ------
    ValueError
        If the list cannot be read. The message tells the instructor why.
    """
    if "\0" in text:  # in workbooks, PDF files and pictures
        raise ValueError(
            "This file is not a CSV file. In your spreadsheet, save the list as CSV (UTF-8)."
        )
    # csv.Sniffer fails for lists with one column. Names contain commas more often than semicolons.
    separator = next((character for character in "\t;" if character in text), ",")
    rows, line = [], 1
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            if any(map(cleaned, row)):
                rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error:  # a field of more than 128 KB
        raise ValueError(f"A quotation mark is missing on line {line} or later.") from None
    columns = headings(rows[0][1]) if rows else []
    if columns:
        del rows[0]
    if not rows:
        raise ValueError("The list is empty. Write one name on each line.")
    if len(rows) > MOST:
        raise ValueError(f"The list has {len(rows)} lines. Split it into lists of at most {MOST}.")
    people = [person(line, row, columns) for line, row in rows]
    refuse_doubles(people)
    return people


def headings(row: list[str]) -> list[str]:
    """Return the column names if a list's first line has headings; otherwise, an empty list."""
    found = [cleaned(cell).casefold().replace("username", "user name") for cell in row]
    return found if "name" in found or "user name" in found else []


def cleaned(cell: str) -> str:
    """Return the text without superfluous spaces and invisible characters.

    Text from spreadsheets and web pages may contain invisible characters. Some of them reverse the
    text that follows.
    """
    visible = (character for character in cell if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFC", " ".join("".join(visible).split()))


def person(line: int, row: list[str], columns: list[str]) -> Person:
    """Return the person in a row, with a message if the row has a problem."""
    cells = dict(zip(columns or COLUMNS, map(cleaned, row), strict=False))
    name, group, chosen = (cells.get(column, "") for column in COLUMNS)
    found = Person(line, name or chosen, group, chosen.lower() or user_name(name))
    if any(end in cell.strip() for cell in row for end in "\r\n"):
        found.problem = "This entry continues on the next line. A quotation mark may be missing."
    elif not columns and any(map(cleaned, row[len(COLUMNS) :])):
        found.problem = (
            "This line has more than three columns. Put a name with a comma in quotation marks."
        )
    else:
        found.problem = fault_of(found)
    return found


def user_name(name: str) -> str:
    """Return a user name for a person's name, or "" if the name has letters not in `SCRIPTS`."""
    if re.match(state.NAMES, name):
        return name
    for letter in filter(str.isalpha, name):
        if not unicodedata.name(letter, "").startswith(SCRIPTS):
            return ""
    spelled = re.sub("['`]", "", unidecode(name)).lower()
    return ".".join(re.findall(r"[a-z0-9]+(?:[_-]+[a-z0-9]+)*", spelled))


def fault_of(person: Person) -> str:
    """Return a message if no account can be created for a person; otherwise, an empty string."""
    if not person.name:
        return "This line has no name."
    if not (person.name + person.group).isprintable():
        return "This line has characters that cannot be printed."
    if len(person.name) > LONGEST_NAME:
        return f"A name has at most {LONGEST_NAME} characters."
    if not person.user_name:
        return (
            "The hub cannot derive a user name from this name. Write one in the third column, "
            "after the group."
        )
    if not re.match(state.NAMES, person.user_name):
        return f"{state.NAMES_RULE} Write a user name in the third column, after the group."
    if len(person.group) > LONGEST_GROUP:
        return f"A group's name has at most {LONGEST_GROUP} characters."
    if person.group.casefold() == GROUP:
        return "A roster cannot add instructors. Only an administrator can, on the Admin page."
    return ""


def refuse_doubles(people: list[Person]) -> None:
    """Add a message to lines that give the same user name."""
    lines: dict[str, list[int]] = {}
    for each in people:
        if each.user_name:
            lines.setdefault(each.user_name, []).append(each.line)
    for each in people:
        same = lines.get(each.user_name, [])
        if len(same) > 1 and not each.problem:
            first = ", ".join(map(str, same[:-1]))
            each.problem = (
                f"Lines {first} and {same[-1]} give the same user name. Delete duplicates, or "
                "write different user names in the third column, after the group."
            )


# --- Compare a list with the accounts


def awaits_owner(account: UserInfo, user: orm.User) -> bool:
    """Return whether someone else created this account and its owner has not used it yet."""
    return (
        account.is_authorized
        and user.last_activity is None
        and passwords.is_first(account.password)
    )


def has_none(account: UserInfo) -> bool:
    """Return whether an account has no password yet."""
    return account.password == passwords.NO_PASSWORD


def has_rights(thing: orm.User | orm.Group) -> bool:
    """Return whether a user or a group has more rights than a learner."""
    if isinstance(thing, orm.User):
        roles = {role.name for role in thing.roles} - {"user"}
        own = thing.admin or roles or thing.shared_with_me
        return bool(own) or any(map(has_rights, thing.groups))
    return thing.name == GROUP or bool(thing.roles or thing.shared_with_me)


def unused(db: Session, all_of_them: bool) -> list[tuple[UserInfo, orm.User]]:
    """Return the accounts that their owners have not used yet.

    Unless `all_of_them` is true, return only learners' accounts. An instructor must not be able to
    create a password for an administrator's new account.
    """
    found = (
        db.query(UserInfo, orm.User)
        .join(orm.User, orm.User.name == UserInfo.username)
        .order_by(UserInfo.username)
    )
    return [
        (account, user)
        for account, user in found
        if awaits_owner(account, user) and (all_of_them or not has_rights(user))
    ]


def compare(people: list[Person], db: Session, all_of_them: bool) -> None:
    """Add to each line what will happen, or a message if the line cannot be used.

    `all_of_them` has the same meaning as in `unused`.
    """
    names = [each.user_name for each in people]
    accounts = {
        account.username: account
        for account in db.query(UserInfo).filter(UserInfo.username.in_(names))
    }
    users = {u.name: u for u in db.query(orm.User).filter(orm.User.name.in_(names))}
    without = {account.username for account, _ in unused(db, all_of_them) if has_none(account)}
    strong = {group.name for group in db.query(orm.Group) if has_rights(group)}
    for each in people:
        account = accounts.get(each.user_name)
        if each.problem:
            continue
        if each.group in strong:
            each.problem = (
                "This group has more rights than learners have. Only an administrator can add "
                "people to it, on the Admin page."
            )
        elif each.user_name in without:
            each.gets_password = True
            each.outcome = (
                "The account exists and will get its first password. Nothing else will change."
            )
        elif account and not account.is_authorized:
            each.outcome = "The account exists and awaits approval on the “Who may come in” page."
        elif account or each.user_name in users:
            each.outcome = "The account exists. Nothing will change."
        else:
            each.is_new = each.gets_password = True
            each.outcome = "The account will be created."


# --- The pages


class RosterHandler(BaseHandler):
    """The page with the form for a list, its preview, and the accounts that are still unused."""

    @needs_instructor
    async def get(self) -> None:
        """Show the form."""
        await self.show()

    @needs_instructor
    async def post(self) -> None:
        """Show what will happen for each line of the list."""
        files = self.request.files.get("file")  # absent or empty if no file was chosen
        content = files[0]["body"] if files else b""
        await self.preview(decoded(content) if content else self.text())

    def text(self) -> str:
        """Return the list from the form's text field."""
        return self.get_body_argument("roster", "", strip=False)

    async def preview(self, text: str) -> None:
        """Show what will happen for each line, or why the list cannot be read."""
        try:
            people = parse(text)
        except ValueError as error:
            await self.show(text="" if "\0" in text else text, refusal=str(error))
            return
        compare(people, self.db, self.is_administrator())
        await self.note_files(people)
        await self.show(text=text, people=people)

    async def note_files(self, people: list[Person]) -> None:
        """Warn if a new account would get the files of an earlier one."""
        new = [each for each in people if each.is_new]
        has_home = self.authenticator.has_home
        found = (pools.run(pools.HOMES, has_home, each.user_name) for each in new)
        for each, has_files in zip(new, await asyncio.gather(*found), strict=True):
            if has_files:
                each.outcome += (
                    " It will get the files that are already stored under this name. If they "
                    "belong to someone else, write another user name in the third column."
                )

    def unused(self) -> list[tuple[UserInfo, orm.User]]:
        """Return the accounts for which this instructor can create first passwords."""
        return unused(self.db, self.is_administrator())

    def is_administrator(self) -> bool:
        """Return whether the instructor may change all users' passwords."""
        return self.has_scope("admin:users")

    async def show(self, text: str = "", people: Iterable[Person] = (), refusal: str = "") -> None:
        """Render the page with a list, its preview, or a message about it."""
        waiting = [(account.username, has_none(account)) for account, _ in self.unused()]
        html = await self.render_template(
            "roster.html",
            text=text,
            people=sorted(people, key=lambda each: not each.problem),  # problems first
            problems=sum(bool(each.problem) for each in people),
            number=sum(each.gets_password for each in people),
            refusal=refusal,
            waiting=waiting,
            largest_file=LARGEST_FILE,
        )
        self.finish(html)

    async def show_sheet(self, people: list[Person]) -> None:
        """Show the new first passwords.

        If this sheet is lost, even on the way to the browser, the *Roster* page still lists these
        accounts as unused, and the instructor can create new first passwords.
        """
        slips = [each for each in people if each.password]
        self.log.info("%s made first passwords for %i people", self.current_user.name, len(slips))
        address = f"{get_browser_protocol(self.request)}://{self.request.host}/"
        self.set_header("Cache-Control", "no-store")
        html = await self.render_template(
            "roster-sheet.html", slips=slips, address=address, csv=as_csv(slips, address)
        )
        self.finish(html)


class CreateHandler(RosterHandler):
    """Create the accounts on a list."""

    @needs_instructor
    async def get(self) -> None:
        """Redirect to the form, for example after a log-in."""
        self.redirect(self.hub.base_url + "roster")

    @needs_instructor
    async def post(self) -> None:
        """Create the accounts and show the sheet; if a line has a problem, show the preview."""
        text = self.text()
        try:
            people = parse(text)
        except ValueError:
            await self.preview(text)
            return
        made = await first_passwords(len(people))
        # Do not await anything until everything is saved. Another request could take one of the
        # names in the meantime.
        compare(people, self.db, self.is_administrator())
        if any(each.problem for each in people) or not any(each.gets_password for each in people):
            await self.preview(text)
            return
        groups = {group.name: group for group in self.db.query(orm.Group)}
        role = orm.Role.find(self.db, "user")
        for each, (each.password, stored) in zip(people, made, strict=True):
            if each.is_new:
                user = orm.User(name=each.user_name, roles=[role])
                if each.group:
                    user.groups = [groups.setdefault(each.group, orm.Group(name=each.group))]
                account = UserInfo(username=each.user_name, password=stored, is_authorized=True)
                self.db.add_all([user, account])
            elif each.gets_password:
                self.authenticator.get_user(each.user_name).password = stored
            else:
                each.password = ""
        self.db.commit()
        TOTAL_USERS.inc(sum(each.is_new for each in people))
        await self.show_sheet(people)


class PasswordsHandler(CreateHandler):
    """Create first passwords for accounts that nobody has used yet."""

    @needs_instructor
    async def post(self) -> None:
        """Create first passwords for the chosen accounts, and show the sheet."""
        chosen = {user.name for _, user in self.unused()}.intersection(
            self.get_body_arguments("name")
        )
        made = iter(await first_passwords(len(chosen)))
        # Someone may have used an account in the meantime.
        people = []
        for account, user in self.unused():
            if user.name in chosen:
                groups = ", ".join(group.name for group in user.groups)
                password, account.password = next(made)
                people.append(Person(0, user.name, groups, user.name, password=password))
        self.db.commit()
        if people:
            await self.show_sheet(people)
        else:
            await self.show(refusal="Choose at least one account that nobody has used yet.")


async def first_passwords(number: int) -> list[tuple[str, bytes]]:
    """Return new passwords with their hashes."""
    new = [state.new_password() for _ in range(number)]
    hashes = await pools.run(pools.PASSWORDS, passwords.quickly_hashed, new)
    return list(zip(new, hashes, strict=True))


def as_csv(slips: Iterable[Person], address: str) -> str:
    """Return the sheet's contents as a link to a CSV file."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([*COLUMNS, "first password", "address"])
    for each in slips:
        texts = spreadsheet.safe(each.name), spreadsheet.safe(each.group)
        writer.writerow([*texts, each.user_name, each.password, address])
    return "data:text/csv;charset=utf-8," + quote("\ufeff" + file.getvalue())


HANDLERS: dict[str, type] = {
    "/roster": RosterHandler,
    "/roster/create": CreateHandler,
    "/roster/passwords": PasswordsHandler,
}
